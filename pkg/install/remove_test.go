package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	build "github.com/flatnet-cni/flatnet/test/binaries"
)

// remove runs Remove and returns what it removed, below the node's root.
func (n *node) remove() string {
	n.t.Helper()
	removed, err := n.Remove()
	if err != nil {
		n.t.Fatal(err)
	}
	return n.below(strings.Join(removed, "\n"))
}

func TestRemove(t *testing.T) {
	n := newNode(t)
	wantText(t, "from an empty node", n.remove(), "")
	n.sync()
	foreign := map[string]string{
		n.bin("portmap"): "#!", n.bin("host-local"): "#!", n.bin(".portmap.tmp-7"): "x",
		n.conf("05-other.conflist"): `{"plugins": [{"type": "flatnet"}]}`, n.conf("10-flatnet.conflist.old"): "{}",
	}
	for path, text := range foreign {
		n.write(path, text, 0o755)
	}
	now := time.Now() // a leftover of a process that was killed just now
	n.write(n.bin(".flatnet.tmp-7"), "half", 0o600)
	if err := os.Chtimes(n.bin(".flatnet.tmp-7"), now, now); err != nil {
		t.Fatal(err)
	}
	wantText(t, "removed", n.remove(), `
etc/cni/net.d/10-flatnet.conflist
opt/cni/bin/flatnet
opt/cni/bin/flatnet-ipam
opt/cni/bin/.flatnet.tmp-7`)
	for path, text := range foreign {
		if n.read(path) != text {
			t.Errorf("%s was changed", path)
		}
	}
	wantText(t, "again", n.remove(), "")
}

// Whatever has one of the names and is not flatnet's stays.
func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*node)
		kept    string
	}{
		{"a configuration of another plugin", func(n *node) {
			n.write(n.conf(conflistName), `{"name": "flatnet", "plugins": [{"type": "bridge"}]}`, 0o644)
		}, "etc/cni/net.d/" + conflistName},
		{"a configuration that cannot be read", func(n *node) { n.write(n.conf(conflistName), `{`, 0o644) }, "etc/cni/net.d/" + conflistName},
		{"a link to a configuration", func(n *node) {
			n.write(filepath.Join(n.root, "elsewhere"), n.read(n.conf(conflistName)), 0o644)
			link(n, filepath.Join(n.root, "elsewhere"), n.conf(conflistName))
		}, "etc/cni/net.d/" + conflistName},
		{"somebody's program", func(n *node) { n.write(n.bin("flatnet"), "#!/bin/sh", 0o755) }, "opt/cni/bin/flatnet"},
		{"a link to the program", func(n *node) { link(n, filepath.Join(n.SourceDir, "flatnet"), n.bin("flatnet")) }, "opt/cni/bin/flatnet"},
		{"a directory", func(n *node) {
			os.Remove(n.bin("flatnet"))
			os.MkdirAll(n.bin("flatnet/x"), 0o755)
		}, "opt/cni/bin/flatnet"},
		{"another's program", func(n *node) {
			// A Go program, and not flatnet: the name in the build information counts.
			directory, err := build.Build()
			if err != nil {
				n.t.Fatal(err)
			}
			n.write(n.bin("flatnet"), n.read(filepath.Join(directory, "flatnet-ipam")), 0o755)
		}, "opt/cni/bin/flatnet"},
		{"the program in SourceDir itself", func(n *node) { n.SourceDir = n.BinDir }, "opt/cni/bin/flatnet opt/cni/bin/flatnet-ipam"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			n.sync()
			c.prepare(n)
			removed := n.remove()
			for _, path := range []string{n.bin("flatnet"), n.bin("flatnet-ipam"), n.conf(conflistName)} {
				path, kept := n.below(path), strings.Contains(" "+c.kept+" ", " "+n.below(path)+" ")
				_, err := os.Lstat(filepath.Join(n.root, path))
				if errors.Is(err, fs.ErrNotExist) == kept || strings.Contains("\n"+removed+"\n", "\n"+path+"\n") == kept {
					t.Errorf("kept %s: %v, and removed:\n%s", path, err, removed)
				}
			}
		})
	}
}

// Of another version than that of the agent, and where the agent's are gone.
func TestRemoveRecognisesOtherVersions(t *testing.T) {
	n := newNode(t)
	directory, err := build.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range binaries() {
		n.write(n.bin(name), n.read(filepath.Join(directory, name)), 0o755)
	}
	wantText(t, "other version", n.remove(), "opt/cni/bin/flatnet\nopt/cni/bin/flatnet-ipam")
	n.SourceDir = directory
	n.sync()
	n.SourceDir = filepath.Join(n.root, "gone")
	wantText(t, "no source", n.remove(), "etc/cni/net.d/10-flatnet.conflist\nopt/cni/bin/flatnet\nopt/cni/bin/flatnet-ipam")
}

func TestRemoveGoesOnAfterAnError(t *testing.T) {
	n := newNode(t)
	n.sync()
	n.Step = func(operation string) error {
		if n.below(operation) == "remove opt/cni/bin/flatnet" {
			return errors.New("injected")
		}
		return nil
	}
	removed, err := n.Remove()
	if err == nil || err.Error() != "injected" {
		t.Errorf("error %v, want the injected one", err)
	}
	wantText(t, "removed", n.below(strings.Join(removed, "\n")), "etc/cni/net.d/10-flatnet.conflist\nopt/cni/bin/flatnet-ipam")
	n.Step = nil
	wantText(t, "removed by the next", n.remove(), "opt/cni/bin/flatnet")
}
