package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/pace"
)

const complete = `
-rwxr-xr-x flatnet
-rwxr-xr-x flatnet-ipam
-rw-r--r-- 10-flatnet.conflist`

func TestSync(t *testing.T) {
	n := newNode(t)
	wantText(t, "findings before", n.findings(), `
opt/cni/bin/flatnet is missing
opt/cni/bin/flatnet-ipam is missing
etc/cni/net.d/10-flatnet.conflist is missing`)
	wantText(t, "changes", n.sync(), `
made directory opt
made directory opt/cni
made directory opt/cni/bin
installed opt/cni/bin/flatnet
installed opt/cni/bin/flatnet-ipam
made directory etc
made directory etc/cni
made directory etc/cni/net.d
wrote etc/cni/net.d/10-flatnet.conflist`)
	wantText(t, "files", n.list(), complete)
	for _, name := range binaries() {
		if n.read(n.bin(name)) != content(name, "1") {
			t.Errorf("%s is not the image's", name)
		}
	}
	wantText(t, "configuration", n.read(n.conf(conflistName)), conflistOf(t, network()))
	wantText(t, "findings after", n.findings(), "")
}

// A restart of the agent is a new Installer.
func TestSyncTouchesNothingThatIsRight(t *testing.T) {
	n := newNode(t)
	n.sync()
	stamps := func() (all []stamp) {
		for _, path := range []string{n.bin("flatnet"), n.bin("flatnet-ipam"), n.conf(conflistName), n.BinDir, n.ConfDir} {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, stampOf(info))
		}
		return all
	}
	before := stamps()
	n.Installer = installerIn(n.root)
	for range 2 {
		wantText(t, "changes", n.sync(), "")
	}
	for k, now := range stamps() {
		if now != before[k] {
			t.Errorf("stamp %d was %v, is %v", k, before[k], now)
		}
	}
}

func TestSyncRepairs(t *testing.T) {
	const bin, conf = "opt/cni/bin/", "etc/cni/net.d/"
	for _, c := range []struct {
		name     string
		damage   func(*node)
		findings string
		changes  string
	}{
		{"another version", func(n *node) { n.SourceDir = n.image("image2", "2") },
			bin + "flatnet differs from image2/flatnet\n" + bin + "flatnet-ipam differs from image2/flatnet-ipam",
			"installed " + bin + "flatnet\ninstalled " + bin + "flatnet-ipam"},
		{"a longer version", func(n *node) { n.SourceDir = n.image("image2", "2.10") },
			bin + "flatnet differs from image2/flatnet\n" + bin + "flatnet-ipam differs from image2/flatnet-ipam",
			"installed " + bin + "flatnet\ninstalled " + bin + "flatnet-ipam"},
		{"binary removed", func(n *node) { os.Remove(n.bin("flatnet")) },
			bin + "flatnet is missing", "installed " + bin + "flatnet"},
		{"binary torn", func(n *node) { os.Truncate(n.bin("flatnet-ipam"), 7) },
			bin + "flatnet-ipam differs from image/flatnet-ipam", "installed " + bin + "flatnet-ipam"},
		{"binary not executable", func(n *node) { os.Chmod(n.bin("flatnet"), 0o644) },
			bin + "flatnet is not executable", "installed " + bin + "flatnet"},
		{"binary a symbolic link", func(n *node) { link(n, filepath.Join(n.SourceDir, "flatnet"), n.bin("flatnet")) },
			bin + "flatnet is a symbolic link", "installed " + bin + "flatnet"},
		{"binary a link to nothing", func(n *node) { link(n, "/nonexistent", n.bin("flatnet")) },
			bin + "flatnet is a symbolic link", "installed " + bin + "flatnet"},
		{"configuration removed", func(n *node) { os.Remove(n.conf(conflistName)) },
			conf + conflistName + " is missing", "wrote " + conf + conflistName},
		{"configuration empty", func(n *node) { os.Truncate(n.conf(conflistName), 0) },
			conf + conflistName + " differs from what it should be", "wrote " + conf + conflistName},
		{"configuration torn", func(n *node) { os.Truncate(n.conf(conflistName), 100) },
			conf + conflistName + " differs from what it should be", "wrote " + conf + conflistName},
		{"configuration changed", func(n *node) {
			n.write(n.conf(conflistName), strings.Replace(n.read(n.conf(conflistName)), "1450", "1400", 1), 0o644)
		}, conf + conflistName + " differs from what it should be", "wrote " + conf + conflistName},
		{"configuration a symbolic link", func(n *node) {
			n.write(filepath.Join(n.root, "elsewhere"), n.read(n.conf(conflistName)), 0o644)
			link(n, filepath.Join(n.root, "elsewhere"), n.conf(conflistName))
		}, conf + conflistName + " is a symbolic link", "wrote " + conf + conflistName},
		{"configuration a pipe", func(n *node) {
			os.Remove(n.conf(conflistName))
			syscall.Mkfifo(n.conf(conflistName), 0o644)
		}, conf + conflistName + " cannot be read: not a file", "wrote " + conf + conflistName},
		{"mode of others taken away", func(n *node) {
			os.Chmod(n.bin("flatnet"), 0o750)
			os.Chmod(n.conf(conflistName), 0o600)
		}, "", ""},
		{"binary in place by other means", func(n *node) {
			n.SourceDir = n.BinDir
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			n.sync()
			c.damage(n)
			wantText(t, "findings", n.findings(), c.findings)
			wantText(t, "changes", n.sync(), c.changes)
			wantText(t, "findings after", n.findings(), "")
			if c.changes == "" {
				return
			}
			wantText(t, "files", n.list(), complete)
			for _, name := range binaries() {
				if n.read(n.bin(name)) != n.read(filepath.Join(n.SourceDir, name)) {
					t.Errorf("%s is not the image's", name)
				}
			}
			wantText(t, "configuration", n.read(n.conf(conflistName)), conflistOf(t, network()))
			if elsewhere, err := os.Lstat(filepath.Join(n.root, "elsewhere")); err == nil && !elsewhere.Mode().IsRegular() {
				t.Error("what the link led to was changed")
			}
		})
	}
}

func link(n *node, to, path string) {
	os.Remove(path)
	if err := os.Symlink(to, path); err != nil {
		n.t.Fatal(err)
	}
}

// A file that changed after it was compared is compared again, even where the
// size and the time of the last change are the same.
func TestCheckSeesAChangeWithTheSameTime(t *testing.T) {
	n := newNode(t)
	n.sync()
	// What was compared within a second of a change is not relied on.
	for _, name := range binaries() {
		if _, err := pace.Await(pace.Far(), func() error {
			if !stampOf(stat(t, n.bin(name))).settled() {
				return fmt.Errorf("%s does not settle", name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	path := n.bin("flatnet")
	info := stat(t, path)
	wantText(t, "findings", n.findings(), "")
	if len(n.verified) != len(binaries()) {
		t.Errorf("%d binaries are remembered as equal, want all", len(n.verified))
	}
	spoiled := []byte(n.read(path))
	spoiled[0] ^= 1
	n.write(path, string(spoiled), 0o755)
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	wantText(t, "findings", n.findings(), "opt/cni/bin/flatnet differs from image/flatnet")
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// A list of before, which chained portmap, becomes one of flatnet alone, whether portmap
// is there or not.
func TestPortmapIsNoLongerChained(t *testing.T) {
	n := newNode(t)
	n.write(n.bin("portmap"), "#!", 0o755)
	old := strings.Replace(conflistOf(t, network()), "    }\n  ]\n}", "    },\n    {\n      \"type\": \"portmap\",\n      \"capabilities\": {\n        \"portMappings\": true\n      }\n    }\n  ]\n}", 1)
	if !strings.Contains(old, "portmap\"") {
		t.Fatal(old)
	}
	n.write(n.conf(conflistName), old, 0o644)
	n.sync()
	wantText(t, "with portmap", n.read(n.conf(conflistName)), conflistOf(t, network()))
	os.Remove(n.bin("portmap"))
	n.sync()
	wantText(t, "without portmap", n.read(n.conf(conflistName)), conflistOf(t, network()))
}

func TestForeignConfigurationIsLeftAlone(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"another plugin", `{"name": "cbr0", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}`,
			`etc/cni/net.d/10-flatnet.conflist is not flatnet's (network "cbr0", plugins [bridge portmap]): move it away, and flatnetd writes its own`},
		{"no plugins", `{}`,
			`etc/cni/net.d/10-flatnet.conflist is not flatnet's (network "", plugins []): move it away, and flatnetd writes its own`},
		{"another network", `{"name": "pods", "plugins": [{"type": "flatnet"}]}`,
			`etc/cni/net.d/10-flatnet.conflist is of network "pods", not of "flatnet", and the pods attached to it need it to be deleted: move it away, and flatnetd writes its own`},
	} {
		for _, linked := range []bool{false, true} {
			n := newNode(t)
			path := n.conf(conflistName)
			n.write(path, c.text, 0o644)
			if linked {
				n.write(filepath.Join(n.root, "elsewhere"), c.text, 0o644)
				link(n, filepath.Join(n.root, "elsewhere"), path)
			}
			_, err := n.Sync(t.Context(), network())
			want := strings.Replace(n.below(c.want), "conflist is", "conflist: it is", 1)
			if err == nil || n.below(err.Error()) != "writing "+want {
				t.Errorf("%s, link %v: error %v\nwant writing %s", c.name, linked, err, want)
			}
			if n.read(path) != c.text {
				t.Errorf("%s, link %v: changed", c.name, linked)
			}
			wantText(t, c.name, n.findings(), c.want)
		}
	}
}

func TestOtherConfigurationsThatRuntimesPrefer(t *testing.T) {
	n := newNode(t)
	n.sync()
	for _, name := range []string{"05-cilium.conflist", "10-calico.conf", "10-containerd-net.json", "00-backup.conflist.bak", "87-podman.conflist", ".tmp"} {
		n.write(n.conf(name), "{}", 0o644)
	}
	if err := os.Mkdir(n.conf("00-directory.conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := func(name string) string {
		path := "etc/cni/net.d/" + name
		return path + " sorts before 10-flatnet.conflist, and the container runtime uses the first: if it is no longer wanted, rename it: mv " +
			path + " " + path + ".unused\n"
	}
	wantText(t, "findings", n.findings(), want("05-cilium.conflist")+want("10-calico.conf")+want("10-containerd-net.json"))
	wantText(t, "changes", n.sync(), "") // told, and no error
	for _, f := range n.Check(network()) {
		if f.Repairable() {
			t.Errorf("%s counts as repairable", f)
		}
	}
}

func TestLeftoversOfInterruptedRuns(t *testing.T) {
	n := newNode(t)
	n.sync()
	old := time.Now().Add(-2 * time.Minute)
	leftovers := []string{n.bin(".flatnet.tmp-123"), n.bin(".flatnet-ipam.tmp-4294967295"), n.conf(".10-flatnet.conflist.tmp-0")}
	others := []string{n.bin(".flatnet.tmp-"), n.bin(".flatnet.tmp-12a"), n.bin("flatnet.tmp-12"), n.bin(".portmap.tmp-12"), n.conf(".10-other.conflist.tmp-1")}
	for _, path := range append(leftovers, others...) {
		n.write(path, "half", 0o600)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	atWork := n.bin(".flatnet.tmp-77")
	n.write(atWork, "half", 0o600)
	wantText(t, "changes", n.sync(), `
removed leftover opt/cni/bin/.flatnet-ipam.tmp-4294967295
removed leftover opt/cni/bin/.flatnet.tmp-123
removed leftover etc/cni/net.d/.10-flatnet.conflist.tmp-0`)
	for _, path := range append(others, atWork) {
		n.read(path)
	}
}

// Hardened nodes have such a umask; runtimes that are not root, and people,
// want to look.
func TestUmaskDoesNotMatter(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	n := newNode(t)
	n.sync()
	wantText(t, "files", n.list(), complete)
	for _, path := range []string{"opt", "opt/cni", "opt/cni/bin", "etc/cni/net.d"} {
		if info, err := os.Stat(filepath.Join(n.root, path)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v, %v; want 0755", path, info.Mode(), err)
		}
	}
}

func TestSwitchedOff(t *testing.T) {
	n := newNode(t)
	n.BinDir = ""
	wantText(t, "without binaries", n.sync(), "made directory etc\nmade directory etc/cni\nmade directory etc/cni/net.d\nwrote etc/cni/net.d/10-flatnet.conflist")
	n = newNode(t)
	n.ConfDir = ""
	wantText(t, "without configuration", n.sync(), "made directory opt\nmade directory opt/cni\nmade directory opt/cni/bin\ninstalled opt/cni/bin/flatnet\ninstalled opt/cni/bin/flatnet-ipam")
	wantText(t, "findings", n.findings(), "")
}

func TestSyncFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*node)
		network Network
		want    string // error
		finding string
	}{
		{"no source", func(n *node) { os.Remove(filepath.Join(n.SourceDir, "flatnet-ipam")) }, network(),
			"reading image/flatnet-ipam, which is to be installed: no such file or directory",
			"opt/cni/bin/flatnet-ipam cannot be installed: reading image/flatnet-ipam, which is to be installed: no such file or directory: " +
				"let --plugins-dir be the directory that has flatnet and flatnet-ipam"},
		{"empty source", func(n *node) { os.Truncate(filepath.Join(n.SourceDir, "flatnet"), 0) }, network(),
			"reading image/flatnet, which is to be installed: it is empty or no file",
			"opt/cni/bin/flatnet cannot be installed: reading image/flatnet, which is to be installed: it is empty or no file: " +
				"let --plugins-dir be the directory that has flatnet and flatnet-ipam"},
		{"a directory in the way", func(n *node) { os.MkdirAll(n.bin("flatnet/x"), 0o755) }, network(),
			"installing opt/cni/bin/flatnet: it is a directory: move it away, and flatnetd writes its own",
			"opt/cni/bin/flatnet is a directory: move it away, and flatnetd writes its own"},
		{"a file in the way", func(n *node) { n.write(filepath.Join(n.root, "opt/cni"), "", 0o644) }, network(),
			"making directory opt/cni: a file is in its place", "opt/cni/bin/flatnet cannot be read: not a directory"},
		{"no podCIDR", func(n *node) {}, Network{Name: "flatnet"},
			"network flatnet has no podCIDRs",
			"etc/cni/net.d/10-flatnet.conflist cannot be written: network flatnet has no podCIDRs: correct that value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			c.prepare(n)
			var findings []string
			for _, f := range n.Check(c.network) {
				findings = append(findings, n.below(f.String()))
			}
			if text := strings.Join(findings, "\n"); !strings.Contains(text, c.finding) {
				t.Errorf("findings\n%s\nlack\n%s", text, c.finding)
			}
			_, err := n.Sync(t.Context(), c.network)
			if err == nil || n.below(err.Error()) != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
			if _, err := os.Lstat(n.conf(conflistName)); err == nil {
				t.Error("there is a configuration all the same")
			}
			if strings.Contains(n.list(), ".tmp-") {
				t.Errorf("left behind:\n%s", n.list())
			}
		})
	}
}

// Mounted into a container, a directory can be removed on the node and still be
// there, dead.
func TestDetachedDirectoryIsExplained(t *testing.T) {
	n := newNode(t)
	inside := filepath.Join(n.root, "mounted")
	for _, path := range []string{n.BinDir, inside} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount(n.BinDir, inside, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(inside, syscall.MNT_DETACH)
	if err := os.Remove(n.BinDir); err != nil {
		t.Fatal(err)
	}
	n.BinDir = inside
	_, err := n.Sync(t.Context(), network())
	if err == nil || !strings.Contains(err.Error(), "restart flatnetd on this node") {
		t.Errorf("error %v does not say what to do", err)
	}
}
