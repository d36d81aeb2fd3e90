package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// spawn runs Sync in a process of its own, which kills itself before the given
// change; killed is true where it came to that.
func (n *node) spawn(at int) (killed bool) {
	n.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childVariable, at), rootVariable+"="+n.root, sourceVariable+"="+n.SourceDir)
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return true
	}
	if err != nil {
		n.t.Fatalf("child: %v\n%s", err, output)
	}
	return false
}

// wantWhole fails where a file is neither the old nor the new one, or where the
// new configuration was there before the new binaries.
func (n *node) wantWhole(when string, oldConflist string) {
	n.t.Helper()
	fresh := map[string]bool{}
	for _, name := range append(binaries(), conflistName) {
		path, old, now := n.bin(name), content(name, "1"), content(name, "2")
		if name == conflistName {
			path, old, now = n.conf(name), oldConflist, conflistOf(n.t, network())
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			if oldConflist != "" { // an upgrade
				n.t.Errorf("%s: %s has vanished", when, name)
			}
			continue
		}
		if err != nil {
			n.t.Fatal(err)
		}
		if fresh[name] = string(text) == now; !fresh[name] && string(text) != old {
			n.t.Errorf("%s: %s is neither the old nor the new one, but %d bytes", when, name, len(text))
		}
	}
	if fresh[conflistName] && (!fresh["flatnet"] || !fresh["flatnet-ipam"]) {
		n.t.Errorf("%s: the configuration is new, and a binary is not", when)
	}
	entries, _ := os.ReadDir(n.ConfDir)
	for _, e := range entries {
		if e.Name() != conflistName && isConfiguration(e.Name()) {
			n.t.Errorf("%s: a runtime reads %s", when, e.Name())
		}
	}
}

// age makes leftovers old enough to be removed.
func (n *node) age() {
	old := time.Now().Add(-2 * time.Minute)
	for _, pattern := range []string{n.bin(".*.tmp-*"), n.conf(".*.tmp-*")} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, path := range paths {
			if err := os.Chtimes(path, old, old); err != nil {
				n.t.Fatal(err)
			}
		}
	}
}

// TestFaultAtEveryStep lets an installation and an upgrade fail before each of
// their changes, by an error and by a kill. What is there then is whole, and
// the next run makes it right and leaves nothing behind.
func TestFaultAtEveryStep(t *testing.T) {
	for _, upgrade := range []bool{false, true} {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("upgrade %v, kill %v", upgrade, kill), func(t *testing.T) {
				t.Parallel()
				for at := 1; ; at++ {
					if !faultAt(t, upgrade, kill, at) {
						if at < 15 {
							t.Errorf("only %d changes", at-1)
						}
						return
					}
				}
			})
		}
	}
}

// faultAt reports whether there was such a step.
func faultAt(t *testing.T, upgrade, kill bool, at int) bool {
	n := newNode(t)
	old := ""
	if upgrade {
		before := network()
		before.MTU = 1280 // the configuration changes, too
		if _, err := n.Sync(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		old = n.read(n.conf(conflistName))
	}
	n.SourceDir = n.image("image2", "2")
	failed := ""
	if kill {
		if n.spawn(at) {
			failed = fmt.Sprintf("kill %d", at)
		}
	} else {
		calls := 0
		n.Step = func(operation string) error {
			if calls++; calls == at {
				failed = n.below(operation)
				return errors.New("injected")
			}
			return nil
		}
		_, err := n.Sync(t.Context(), network())
		if (err != nil) != (failed != "") {
			t.Errorf("%s: error %v", failed, err)
		}
		if strings.Contains(n.list(), ".tmp-") {
			t.Errorf("%s: left behind:\n%s", failed, n.list())
		}
	}
	n.wantWhole(failed, old)
	n.Step = nil
	n.age()
	n.sync()
	wantText(t, failed+": files", n.list(), "-rwxr-xr-x flatnet\n-rwxr-xr-x flatnet-ipam\n-rw-r--r-- 10-flatnet.conflist")
	wantText(t, failed+": findings", n.findings(), "")
	return failed != ""
}

// Two versions of the agent may run on a node for a moment.
func TestSeveralProcesses(t *testing.T) {
	n := newNode(t)
	old, fresh := n.SourceDir, n.image("image2", "2")
	var group sync.WaitGroup
	for _, source := range []string{old, fresh, old, fresh} {
		group.Go(func() {
			process := &node{Installer: installerIn(n.root), t: t, root: n.root}
			process.SourceDir = source
			for range 3 {
				if process.spawn(0) {
					t.Error("killed")
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, name := range binaries() {
			text, err := os.ReadFile(n.bin(name))
			if err == nil && string(text) != content(name, "1") && string(text) != content(name, "2") {
				t.Errorf("%s is torn", name)
			}
		}
		text, err := os.ReadFile(n.conf(conflistName))
		if err == nil && string(text) != conflistOf(t, network()) {
			t.Error("the configuration is torn")
		}
	}
	if strings.Contains(n.list(), ".tmp-") {
		t.Errorf("left behind:\n%s", n.list())
	}
}

// Pods are added while the plugin is replaced: every execution finds a whole
// program, also while this process starts others, and one that is running goes on.
func TestReplacedWhileItIsExecuted(t *testing.T) {
	n := newNode(t)
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	n.write(filepath.Join(n.SourceDir, "flatnet"), string(shell), 0o755)
	other := n.image("image2", "2")
	n.write(filepath.Join(other, "flatnet"), string(shell)+"another version", 0o755)
	n.sync()

	running := exec.Command(n.bin("flatnet"), "-c", "read line; echo $line")
	stdin, err := running.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	running.Stdout = &said
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for executions := 0; ; executions++ {
				select {
				case <-stop:
					if executions == 0 {
						t.Error("nothing was executed")
					}
					return
				default:
				}
				if output, err := exec.Command(n.bin("flatnet"), "-c", "exit 0").CombinedOutput(); err != nil {
					t.Errorf("executing: %v %s", err, output)
					return
				}
			}
		})
	}
	for k := range 40 {
		n.SourceDir = []string{other, filepath.Join(n.root, "image")}[k%2]
		if !strings.Contains(n.sync(), "installed opt/cni/bin/flatnet") {
			t.Error("not replaced")
		}
	}
	close(stop)
	group.Wait()
	fmt.Fprintln(stdin, "still here")
	if err := running.Wait(); err != nil || said.String() != "still here\n" {
		t.Errorf("the one that was running said %q, %v", said.String(), err)
	}
}
