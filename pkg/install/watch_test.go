package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watched is a [Installer.Watch] that runs in the background.
type watched struct {
	t     *testing.T
	calls chan struct{}
}

func startWatch(t *testing.T, n *node) *watched {
	t.Helper()
	w := &watched{t: t, calls: make(chan struct{}, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Watch(ctx, func() { w.calls <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	w.want("the start")
	return w
}

// want waits for a call, and for the end of those that belong to the same change.
func (w *watched) want(what string) {
	w.t.Helper()
	select {
	case <-w.calls:
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s was not told", what)
	}
	for w.quiet() != nil {
	}
}

// quiet returns an error where there is a call within a few times of what
// changes are collected for.
func (w *watched) quiet() error {
	select {
	case <-w.calls:
		return errors.New("told")
	case <-time.After(4 * settle):
		return nil
	}
}

func TestWatchTells(t *testing.T) {
	n := newNode(t)
	n.write(n.conf("87-podman.conflist"), "{}", 0o644)
	n.sync()
	w := startWatch(t, n)
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a removed binary", func() error { return os.Remove(n.bin("flatnet")) }},
		{"a written binary", func() error { return os.WriteFile(n.bin("flatnet-ipam"), []byte("x"), 0o755) }},
		{"a mode", func() error { return os.Chmod(n.bin("flatnet-ipam"), 0o644) }},
		{"portmap", func() error { return os.WriteFile(n.bin("portmap"), []byte("x"), 0o755) }},
		{"portmap's end", func() error { return os.Rename(n.bin("portmap"), n.bin("gone")) }},
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
		if w.quiet() != nil {
			t.Errorf("%s was told, and is nobody's business", path)
		}
	}
}

// A package manager changes all of it at once.
func TestWatchCollects(t *testing.T) {
	n := newNode(t)
	n.sync()
	w := startWatch(t, n)
	begin := time.Now()
	for range 200 {
		n.write(n.bin("flatnet"), "x", 0o755)
		n.write(n.conf(conflistName), "{}", 0o644)
	}
	took := time.Since(begin)
	<-w.calls
	calls := 1
	for w.quiet() != nil {
		calls++
	}
	if most := int(took/settle) + 2; calls > most {
		t.Errorf("%d calls for changes in %s, want at most %d", calls, took, most)
	}
}

func TestWatchFollowsDirectories(t *testing.T) {
	n := newNode(t) // neither directory exists
	w := startWatch(t, n)
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
	if w.quiet() != nil {
		t.Error("the old directory is still watched")
	}
	n.write(n.bin("flatnet"), "x", 0o755)
	w.want("a change in the new directory")
}

// Watch and Sync together repair, and come to rest.
func TestWatchAndSync(t *testing.T) {
	n := newNode(t)
	w := startWatch(t, n)
	for range 3 {
		n.sync()
		w.want("Sync")
		wantText(t, "changes", n.sync(), "")
		if w.quiet() != nil {
			t.Error("a Sync that changes nothing is told")
		}
		if err := errors.Join(os.RemoveAll(n.BinDir), os.Remove(n.conf(conflistName))); err != nil {
			t.Fatal(err)
		}
		w.want("the removal")
	}
}
