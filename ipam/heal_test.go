package ipam

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTorn: what a writer left that died halfway does not count, and does not
// hurt.
func TestTorn(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "blank": "\r\n", "binary": "\x00\x01\x02", "zeros": strings.Repeat("\x00", 4096), "three lines": "a\r\neth0\r\nmore",
		"path": "../../etc\r\neth0", "huge": strings.Repeat("x", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			var log bytes.Buffer
			l.Options.Log = slog.New(slog.NewTextHandler(&log, nil))
			pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
			l.want("add", l.add(pool, "a"), "10.0.0.2")
			for _, addr := range []string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"} {
				l.write(addr, content)
			}
			got := strings.Fields(l.add(pool, "b") + " " + l.add(pool, "c") + " " + l.add(pool, "d") + " " + l.add(pool, "e"))
			slices.Sort(got)
			l.want("all of them", strings.Join(got, " "), "10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6")
			l.want("the one before", l.lookup("a", "eth0"), "10.0.0.2")
			if n := strings.Count(log.String(), "without a readable owner"); n != 4 {
				t.Errorf("told of %d torn records:\n%s", n, &log)
			}
			l.intact()

			// In place, so that the directory does not show it.
			l.write("10.0.0.4", content)
			l.want("asked for by name", l.add(pool, "f", "10.0.0.4"), "10.0.0.4")
			l.intact()
			l.write("10.0.0.5", content)
			l.want("when nothing else is free", l.add(pool, "g"), "10.0.0.5")
			l.intact()
			l.write("10.0.0.2", content)
			l.want("lookup", l.lookup("a", "eth0"), "")
			l.want("del", l.del("a"), "")
			l.want("add", l.add(pool, "h"), "10.0.0.2")
			l.intact()
			l.write("10.0.0.2", content)
			if collected, err := l.open().Collect(t.Context(), func(Reservation) bool { return false }); err != nil || len(collected) != 0 {
				t.Errorf("%v, %v", collected, err)
			}
			if l.records()["10.0.0.2"] != "" {
				t.Error("Collect left a torn record")
			}
			l.intact()
		})
	}
}

// TestGarbage puts all sorts of things in place of every file of the index.
func TestGarbage(t *testing.T) {
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/28"}], [{"subnet": "fd00::/64"}]]`)
	prepared := func(t *testing.T) *lab {
		l := newLab(t)
		for _, id := range []string{"a", "b", "c", "d"} {
			l.add(pool, id)
		}
		l.del("b")
		l.del("d")
		l.write("10.0.0.9", "legacy")
		l.want("settled", l.lookup("a", "eth0"), "10.0.0.2 fd00::2")
		return l
	}
	template := prepared(t)
	var names []string
	_ = filepath.Walk(template.path(".flatnet"), func(path string, info os.FileInfo, err error) error {
		name, _ := filepath.Rel(template.path(""), path)
		names = append(names, name)
		return nil
	})

	outside := t.TempDir()
	kinds := map[string]func(path string) error{
		"nothing":   func(string) error { return nil },
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"text":      func(p string) error { return os.WriteFile(p, []byte("garbage"), 0o600) },
		"zeros":     func(p string) error { return os.WriteFile(p, make([]byte, 10_000), 0o600) },
		"directory": func(p string) error { return os.MkdirAll(filepath.Join(p, "a", "b"), 0o700) },
		"link":      func(p string) error { return os.Symlink("garbage", p) },
		"loop":      func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"long link": func(p string) error { return os.Symlink(strings.Repeat("x/", 2000), p) },
		"outside":   func(p string) error { return os.Symlink(outside, p) },
		"pipe":      func(p string) error { return unix.Mkfifo(p, 0o600) },
	}
	for kind, put := range kinds {
		for _, name := range names {
			t.Run(kind+" as "+name, func(t *testing.T) {
				t.Parallel()
				l := prepared(t)
				if err := os.RemoveAll(l.path(name)); err != nil {
					t.Fatal(err)
				}
				if err := put(l.path(name)); err != nil {
					t.Skip("cannot make it: ", err)
				}
				if err := l.open().HasFree(t.Context(), pool); err != nil {
					t.Error("HasFree: ", err)
				}
				got := l.add(pool, "new")
				if !strings.HasPrefix(got, "10.0.0.") || strings.Contains(got, "reserved") {
					t.Errorf("add: %s", got)
				}
				l.want("the new one", l.del("new"), got)
				// Entries are found by name; one that was taken away by hand
				// is found by reading the records.
				if _, err := l.open().Collect(t.Context(), func(Reservation) bool { return false }); err != nil {
					t.Error("Collect: ", err)
				}
				l.intact()
				l.want("lookup", l.lookup("legacy", "eth0"), "10.0.0.9")
				l.want("lookup", l.lookup("a", "eth0"), "10.0.0.2 fd00::2")
				l.want("del", l.del("a"), "10.0.0.2 fd00::2")
				l.want("del", l.del("c"), "10.0.0.4 fd00::4")
				l.want("del", l.del("legacy"), "10.0.0.9")
				l.want("records", fmt.Sprint(l.records()), "map[]")
				l.intact()
				l.fill(pool, 13)
			})
		}
	}
}

// fill allocates until the pool is exhausted, which has to be after n.
func (l *lab) fill(pool Pool, n int) {
	l.Helper()
	seen := map[string]bool{}
	for i := range n {
		got := l.add(pool, fmt.Sprint("fill", i))
		if strings.Contains(got, "no IP") || seen[got] {
			l.Errorf("allocation %d of %d: %s", i, n, got)
			return
		}
		seen[got] = true
	}
	if got := l.add(pool, "too many"); !strings.HasPrefix(got, "no IP addresses available") {
		l.Errorf("more than %d: %s", n, got)
	}
	l.intact()
}

func TestOtherBoot(t *testing.T) {
	l := newLab(t)
	var log bytes.Buffer
	l.Options.Log = slog.New(slog.NewTextHandler(&log, nil))
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	for _, id := range []string{"a", "b", "c"} {
		l.add(pool, id)
	}
	l.del("a")
	l.BootID = "another boot"
	l.want("lookup", l.lookup("b", "eth0"), "")
	l.want("records", fmt.Sprint(l.records()), "map[]")
	if !strings.Contains(log.String(), "reservations of an earlier boot are discarded") || !strings.Contains(log.String(), "addresses=2") {
		t.Errorf("log: %s", &log)
	}
	l.intact()
	// Those of before the boot are used last, in the order of their release.
	for i, want := range []string{"10.0.0.5", "10.0.0.6", "10.0.0.2"} {
		l.want("add", l.add(pool, fmt.Sprint("n", i)), want)
	}
	l.fill(pool, 2)
	l.want("this boot's live on", l.lookup("n1", "eth0"), "10.0.0.6")

	// The state is lost, but not the link that says of which boot it was.
	l.write(".flatnet/state", "")
	l.BootID = "a third boot"
	l.want("lookup", l.lookup("n1", "eth0"), "")
	l.want("records", fmt.Sprint(l.records()), "map[]")
	l.fill(pool, 5)

	// A copy of the directory that never had an index is taken over.
	fresh := newLab(t)
	fresh.write("10.0.0.3", "x\r\neth0")
	fresh.want("lookup", fresh.lookup("x", "eth0"), "10.0.0.3")
	fresh.BootID = "another boot"
	fresh.want("lookup", fresh.lookup("x", "eth0"), "")
	// With the kernel's id.
	fresh.BootID = ""
	fresh.want("add", fresh.add(pool, "y"), "10.0.0.2")
	fresh.want("lookup", fresh.lookup("y", "eth0"), "10.0.0.2")
}

// TestVanished: somebody removes the whole directory under a store.
func TestVanished(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	s := l.open()
	if err := os.RemoveAll(l.root); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Release(t.Context(), Owner{"a", "eth0"}); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Allocate(t.Context(), Request{Owner: Owner{"a", "eth0"}, Pool: pool}); err != nil {
		t.Error(err)
	}
	l.intact()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestErrorText: a runtime takes an error with these words for success.
func TestErrorText(t *testing.T) {
	l := newLab(t)
	s := l.open()
	if err := os.RemoveAll(l.root); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("missing/missing", l.root); err != nil {
		t.Fatal(err)
	}
	_, err := s.Release(t.Context(), Owner{"a", "eth0"})
	if err == nil {
		t.Fatal("released in a directory that cannot be")
	}
	for _, words := range []string{"not found", "no such file or directory"} {
		if strings.Contains(err.Error(), words) {
			t.Errorf("%q contains %q", err, words)
		}
	}
	if err := os.Remove(l.root); err != nil {
		t.Fatal(err)
	}
}
