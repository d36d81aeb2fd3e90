package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// watching is what [Installer.Watch] does, but for the time that it collects changes:
// the test takes the kernel's notifications one by one.
type watching struct {
	t      *testing.T
	watch  *watch
	marker string // a file that is nobody's business, in a directory that is watched too
}

func startWatching(t *testing.T, n *node) *watching {
	t.Helper()
	w, err := n.beginWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.notify.Close() })
	directory := t.TempDir()
	if err := w.notify.Add(directory); err != nil {
		t.Fatal(err)
	}
	return &watching{t, w, filepath.Join(directory, "marker")}
}

// told reports whether anything that happened until now is of interest. The kernel
// notifies in order: what comes before the marker is all there is.
func (w *watching) told() (relevant bool) {
	w.t.Helper()
	if err := os.Mkdir(w.marker, 0o755); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(w.marker); err != nil {
			w.t.Fatal(err)
		}
	}()
	deadline := time.After(pace.Far())
	for {
		select {
		case event := <-w.watch.notify.Events:
			if event.Name == w.marker && event.Has(fsnotify.Create) {
				return relevant
			}
			is, err := w.watch.handle(event)
			if err != nil {
				w.t.Fatal(err)
			}
			relevant = relevant || is
		case err := <-w.watch.notify.Errors:
			w.t.Fatal(err)
		case <-deadline:
			w.t.Fatal("the kernel does not notify")
		}
	}
}

// want demands that something of interest has happened.
func (w *watching) want(what string) {
	w.t.Helper()
	if !w.told() {
		w.t.Fatalf("%s was not told", what)
	}
}

func TestWatchTells(t *testing.T) {
	n := newNode(t)
	n.write(n.conf("87-podman.conflist"), "{}", 0o644)
	n.sync()
	w := startWatching(t, n)
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a removed binary", func() error { return os.Remove(n.bin("flatnet")) }},
		{"a written binary", func() error { return os.WriteFile(n.bin("flatnet-ipam"), []byte("x"), 0o755) }},
		{"a mode", func() error { return os.Chmod(n.bin("flatnet-ipam"), 0o644) }},
		{"a removed configuration", func() error { return os.Remove(n.conf(conflistName)) }},
		{"a renamed configuration", func() error { return os.Rename(n.conf("87-podman.conflist"), n.conf(conflistName)) }},
		{"another configuration", func() error { return os.WriteFile(n.conf("05-other.conf"), []byte("{}"), 0o644) }},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		w.want(c.what)
	}
	for _, path := range []string{n.bin("host-local"), n.bin(".flatnet.tmp-7"), n.conf("README"), n.conf(".10-flatnet.conflist.tmp-7")} {
		n.write(path, "x", 0o644)
		if w.told() {
			t.Errorf("%s was told, and is nobody's business", path)
		}
	}
}

// A package manager changes all of it at once, which is told a few times.
func TestWatchCollects(t *testing.T) {
	n := newNode(t)
	n.sync()
	calls := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Watch(ctx, func() { calls <- struct{}{} }) }()
	call := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(pace.Far()):
			t.Fatalf("%s was not told", what)
		}
	}
	call("the start")
	begin := time.Now()
	for range 200 {
		n.write(n.bin("flatnet"), "x", 0o755)
		n.write(n.conf(conflistName), "{}", 0o644)
	}
	call("a change")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
	// Each waits for as long as changes are collected, so there are no more than fit in.
	made := 1 + len(calls)
	if took := time.Since(begin); made > int(took/settle) {
		t.Errorf("%d calls in %s, with %s before each", made, took, settle)
	}
}

func TestWatchFollowsDirectories(t *testing.T) {
	n := newNode(t) // neither directory exists
	w := startWatching(t, n)
	n.sync()
	w.want("what Sync made")

	if err := os.Remove(n.bin("flatnet")); err != nil {
		t.Fatal(err)
	}
	w.want("a removed binary in a directory that came later")

	if err := os.RemoveAll(filepath.Join(n.root, "etc")); err != nil {
		t.Fatal(err)
	}
	w.want("the removed directory")
	n.sync()
	w.want("the directory made again")
	if err := os.Remove(n.conf(conflistName)); err != nil {
		t.Fatal(err)
	}
	w.want("a removed configuration in the new directory")

	if err := os.Rename(n.BinDir, n.BinDir+".old"); err != nil {
		t.Fatal(err)
	}
	w.want("the directory that was moved away")
	n.sync()
	w.want("the new directory")
	n.write(filepath.Join(n.BinDir+".old", "flatnet"), "x", 0o755)
	if w.told() {
		t.Error("the old directory is still watched")
	}
	n.write(n.bin("flatnet"), "x", 0o755)
	w.want("a change in the new directory")
}

// Whoever syncs whenever he is told repairs, and comes to rest.
func TestWatchAndSync(t *testing.T) {
	n := newNode(t)
	w := startWatching(t, n)
	for range 3 {
		n.sync()
		w.want("Sync")
		wantText(t, "changes", n.sync(), "")
		if w.told() {
			t.Error("a Sync that changes nothing is told")
		}
		if err := errors.Join(os.RemoveAll(n.BinDir), os.Remove(n.conf(conflistName))); err != nil {
			t.Fatal(err)
		}
		w.want("the removal")
	}
}
