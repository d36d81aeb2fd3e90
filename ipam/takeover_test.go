package ipam

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTakeover: a directory of host-local goes on with its pods, and back.
func TestTakeover(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}], [{"subnet": "fd00::/64"}]]`)
	for i := 2; i <= 5; i++ {
		l.hostLocalAdd(fmt.Sprint("old", i), "eth0", fmt.Sprintf("10.0.0.%d", i), 0)
		l.hostLocalAdd(fmt.Sprint("old", i), "eth0", fmt.Sprintf("fd00::%d", i), 1)
	}
	early := time.Now().Add(-time.Hour)
	if err := os.Chtimes(l.path("10.0.0.3"), early, early); err != nil {
		t.Fatal(err)
	}

	l.want("lookup", l.lookup("old3", "eth0"), "10.0.0.3 fd00::3")
	l.intact()
	l.want("again", l.add(pool, "old3"), "10.0.0.3 and fd00::3 are already reserved for container old3 interface eth0")
	l.want("next", l.add(pool, "new"), "10.0.0.6 fd00::6")
	reservations, err := l.open().Reservations(t.Context())
	if err != nil || len(reservations) != 5 {
		t.Errorf("%v, %v", reservations, err)
	}
	for _, r := range reservations {
		if r.Owner.ContainerID == "old3" && !r.Since.Equal(early) {
			t.Errorf("old3 holds since %s, want %s", r.Since, early)
		}
		if want := r.Owner.ContainerID == "new"; want != (r.Sandbox.Inode == 4711) {
			t.Errorf("%+v", r)
		}
	}
	l.want("del", l.del("old2"), "10.0.0.2 fd00::2")
	l.intact()

	// host-local releases one of ours and one of its own, and adds one.
	if n := l.hostLocalDel("new", "eth0"); n != 2 {
		t.Errorf("host-local removed %d files, want 2", n)
	}
	if n := l.hostLocalDel("old4", "eth0"); n != 2 {
		t.Errorf("host-local removed %d files, want 2", n)
	}
	l.hostLocalAdd("back", "eth0", "10.0.0.7", 0)
	l.want("lookup", l.lookup("new", "eth0"), "")
	l.want("lookup", l.lookup("back", "eth0"), "10.0.0.7")
	l.intact()
	l.want("goes on behind host-local", l.add(pool, "new2"), "10.0.0.8 fd00::7")
	for i := 9; i <= 14; i++ {
		l.want("add", l.add(pool, fmt.Sprint(i)), fmt.Sprintf("10.0.0.%d fd00::%x", i, i-1))
	}
	l.want("oldest released", l.add(pool, "a"), "10.0.0.2 fd00::e")
	got := l.add(pool, "b") + " " + l.add(pool, "c")
	if !strings.Contains(got, "10.0.0.4") || !strings.Contains(got, "10.0.0.6") {
		t.Errorf("what host-local released is not found: %s", got)
	}
	l.want("full", l.add(pool, "d"), "no IP addresses available in range set 10.0.0.1-10.0.0.14: 13 reserved")
	l.intact()
}

// TestInvisible: host-local, which compares the content of every file, finds
// exactly the records.
func TestInvisible(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}], [{"subnet": "fd00::/64"}]]`)
	for _, id := range []string{"a", "b", "c"} {
		l.add(pool, id)
	}
	l.del("b")
	for id, want := range map[string]int{"a\r\neth0": 2, "c\r\neth0": 2, "b\r\neth0": 0, "a": 0} {
		if paths := l.hostLocalFind(id); len(paths) != want {
			t.Errorf("%q is in %v", id, paths)
		}
	}
	// And it can read no link.
	_ = filepath.Walk(l.path(""), func(path string, info os.FileInfo, err error) error {
		if info.Mode()&os.ModeSymlink != 0 {
			if _, err := os.ReadFile(path); err == nil {
				t.Errorf("%s leads somewhere", path)
			}
		}
		return nil
	})
}

// TestLegacy: old versions of host-local recorded the container's id only.
func TestLegacy(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}]]`)
	l.write("10.0.0.2", "old")
	l.write("10.0.0.3", "  mixed\n ")
	l.write("10.0.0.4", "mixed\r\neth0")
	l.write("10.0.0.5", " spaced\r\neth0 \n")
	l.want("lookup", l.lookup("old", "eth0"), "10.0.0.2")
	l.want("lookup", l.lookup("old", "net1"), "10.0.0.2")
	l.want("lookup", l.lookup("spaced", "eth0"), "10.0.0.5")
	l.want("lookup with white space", l.lookup(" \n spaced \n", "eth0"), "10.0.0.5")
	l.want("duplicate", l.add(pool, "old"), "10.0.0.2 is already reserved for container old")
	l.want("not of this pool", l.add(poolOf(t, `[[{"subnet": "10.1.0.0/28"}]]`), "old"), "10.1.0.2")
	l.want("the exact one comes first", l.del("old"), "10.1.0.2")
	l.want("then that of the container", l.del("old"), "10.0.0.2")
	l.want("the exact one comes first", l.del("mixed"), "10.0.0.4")
	l.want("then that of the container", l.lookup("mixed", "eth0"), "10.0.0.3")
	l.want("then that of the container", l.del("mixed"), "10.0.0.3")
	l.want("nothing left", l.del("mixed"), "")
	l.intact()

	l.write("10.0.0.9", "gone")
	collected, err := l.open().Collect(t.Context(), func(r Reservation) bool { return r.Owner.Interface == "" })
	if err != nil || len(collected) != 1 || collected[0].Owner != (Owner{"gone", ""}) {
		t.Errorf("%v, %v", collected, err)
	}
	l.intact()
}

// TestRewrittenWithoutInterface: somebody writes a record of ours as an old version of
// host-local would have. It stays the owner's, in the directory's index and without.
func TestRewrittenWithoutInterface(t *testing.T) {
	for _, anew := range []bool{false, true} {
		l := newLab(t)
		pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}], [{"subnet": "fd00::/64"}]]`)
		l.want("add", l.add(pool, "pod"), "10.0.0.2 fd00::2")
		l.write("10.0.0.2", "pod")
		if anew {
			l.write("10.0.0.9", "other") // a change that has the records read again
		}
		l.want("lookup", l.lookup("pod", "eth0"), "10.0.0.2 fd00::2")
		l.want("again", l.add(pool, "pod"), "10.0.0.2 and fd00::2 are already reserved for container pod interface eth0")
		l.want("del", l.del("pod"), "10.0.0.2 fd00::2")
		l.want("lookup", l.lookup("pod", "eth0"), "")
		l.intact()
	}
}

// TestTrimmed: the id of a record is free of white space, as is host-local's.
func TestTrimmed(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.1.2.0/24"}]]`)
	l.want("add", l.add(pool, "   dummy\n "), "10.1.2.2")
	l.want("record", fmt.Sprint(l.records()), "map[10.1.2.2:dummy eth0]")
	l.want("del", l.del("   dummy\n "), "10.1.2.2")
}

// TestOtherFiles: what is no record is left alone.
func TestOtherFiles(t *testing.T) {
	l := newLab(t)
	names := []string{"notes.txt", "10.0.0.02", "10.0.0.300", "::ffff:10.0.0.3", "FD00::3", "fe80::1%eth0", "last_reserved_ip.7"}
	for _, name := range names {
		l.write(name, "")
	}
	if err := os.Mkdir(l.path("10.0.0.4"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", l.path("10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	l.want("add", l.add(pool, "a"), "10.0.0.2")
	l.want("add", l.add(pool, "b"), "10.0.0.3")
	l.want("a directory is no free address", l.add(pool, "c", "10.0.0.4"), "requested address 10.0.0.4 is not available: its record names no owner")
	l.want("a link is none either", l.add(pool, "c", "10.0.0.5"), "requested address 10.0.0.5 is not available: its record names no owner")
	l.want("add", l.add(pool, "c"), "10.0.0.6")
	l.want("add", l.add(pool, "d"), "no IP addresses available in range set 10.0.0.1-10.0.0.6: 5 reserved")
	if _, err := l.open().Collect(t.Context(), func(Reservation) bool { return true }); err != nil {
		t.Error(err)
	}
	for _, name := range append(names, "10.0.0.4", "10.0.0.5") {
		if _, err := os.Lstat(l.path(name)); err != nil {
			t.Error(err)
		}
	}
}
