package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func FuzzRecord(f *testing.F) {
	for _, seed := range []string{"id\r\neth0", "id", "  id\n ", "", "\x00", "a\nb\nc", "id\r\n", "\r\neth0", "a/b\r\neth0"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		o, ok := parseRecord(content)
		if !ok {
			return
		}
		if same, err := o.canonical(); err != nil || same != o {
			t.Fatalf("%q names %+v: %v", content, o, err)
		}
		if again, ok := parseRecord([]byte(recordText(o))); !ok || again != o {
			t.Fatalf("%+v reads back as %+v", o, again)
		}
		// What host-local takes for somebody's has to be that one's for us.
		trimmed := strings.TrimSpace(string(content))
		if id, ifname, two := strings.Cut(trimmed, "\r\n"); two && (Owner{id, ifname}) != o {
			if same, err := (Owner{id, ifname}).canonical(); err == nil && same != o {
				t.Fatalf("%q names %+v, and %+v to host-local", content, o, same)
			}
		}
	})
}

func FuzzEntry(f *testing.F) {
	e := entry{owner: Owner{"id", "eth0"}, sandbox: Sandbox{"/run/netns/x", 4, 4711},
		held: []holding{{netip.MustParseAddr("10.0.0.2"), setKey{1}}, {netip.MustParseAddr("fd00::2"), setKey{}}}}
	f.Add(e.text())
	for _, seed := range []string{"", "1\n\n\n\n\n\n", "1\nid\neth0\n4:5\n10.0.0.2/-\n", "2\nid\neth0\n4:5\n10.0.0.2/-\n", "1\nid\neth0\n4:5\n10.0.0.02/-\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, ok := parseEntry(text)
		if ok && e.text() != text {
			t.Fatalf("%q reads back as %q", e.text(), text)
		}
		if ok && len(e.held) == 0 {
			t.Fatalf("%q holds nothing", text)
		}
	})
}

func FuzzPlace(f *testing.F) {
	f.Add(placeText(setKey{1, 2}, 3))
	f.Add("-/0000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		if key, number, ok := parsePlace(text); ok && placeText(key, number) != text {
			t.Fatalf("%q reads back as %q", text, placeText(key, number))
		}
		if index, set, ok := parseSetText(text); ok && (len(set) == 0 || setText(index, set) == "") {
			t.Fatalf("%q is no set", text)
		}
	})
}

func FuzzState(f *testing.F) {
	st := state{busy: true, boot: bootMark{1}, stamp: stamp{1, 2, 3, 4, 5}, clock: 6, legacy: 7, slots: []*slot{
		{key: setKey{1}, index: 2, cursor: netip.MustParseAddr("10.0.0.2"), fresh: 3, head: 4, tail: 5, queued: 1, used: 6, full: true},
		{key: setKey{2}, cursor: netip.MustParseAddr("fd00::2")}, {key: setKey{3}}}}
	f.Add(st.encode(nil))
	f.Add([]byte(stateMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, ok := decodeState(b)
		if !ok {
			return
		}
		again, ok := decodeState(st.encode(nil))
		if !ok || fmt.Sprint(again.stamp, again.slots == nil) != fmt.Sprint(st.stamp, st.slots == nil) || len(again.slots) != len(st.slots) {
			t.Fatalf("%+v reads back as %+v", st, again)
		}
		for i, sl := range st.slots {
			if fmt.Sprint(*again.slots[i]) != fmt.Sprint(*sl) {
				t.Fatalf("%+v reads back as %+v", sl, again.slots[i])
			}
		}
	})
}

// FuzzIndex puts arbitrary text in place of arbitrary parts of the index, with
// a valid checksum where that is needed to be believed.
func FuzzIndex(f *testing.F) {
	for which := range uint8(14) {
		f.Add(which, uint8(0), []byte("garbage"))
		f.Add(which, uint8(1), []byte("10.0.0.5"))
		f.Add(which, uint8(2), []byte("1\nx\neth0\n0:0\n10.0.0.2/-\n"))
	}
	f.Add(uint8(9), uint8(1), bytes.Repeat([]byte{0xff}, 200))
	f.Fuzz(func(t *testing.T, which, how uint8, data []byte) {
		l := newLab(t)
		pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
		for _, id := range []string{"a", "b", "c"} {
			l.add(pool, id)
		}
		l.del("b")
		var names []string
		_ = filepath.Walk(l.path(".flatnet"), func(path string, info os.FileInfo, err error) error {
			names = append(names, path)
			return nil
		})
		path := names[int(which)%len(names)]
		if filepath.Base(path) == "state" && how%2 == 1 {
			// A state that is believed, with random counters.
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			st, ok := decodeState(content)
			if !ok || len(st.slots) != 1 {
				t.Fatalf("%+v", st)
			}
			encoded := st.encode(nil)
			for i, c := range data {
				if at := headerSize + 8 + i; at < len(encoded) {
					encoded[at] ^= c
				}
			}
			changed := state{}
			copyState(&changed, encoded, st)
			data = changed.encode(nil)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			switch how % 3 {
			case 0:
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			case 1, 2:
				if os.Symlink(string(data), path) != nil {
					t.Skip("no text for a link")
				}
				if _, err := os.Stat(path); err == nil {
					t.Skip("it leads somewhere")
				}
			}
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := burnt(t)
		_ = l.open().HasFree(t.Context(), pool)
		got := l.add(pool, "new")
		if got == "10.0.0.2" || got == "10.0.0.4" {
			t.Errorf("%s has two owners", got)
		}
		if _, err := l.open().Collect(t.Context(), func(Reservation) bool { return false }); err != nil {
			t.Error(err)
		}
		l.want("a", l.lookup("a", "eth0"), "10.0.0.2")
		l.want("b", l.lookup("b", "eth0"), "")
		l.del("new")
		l.del("c")
		l.intact()
		l.del("a")
		l.fill(pool, 5)
		if took := burnt(t) - before; took > 5*time.Second {
			t.Errorf("healing took %s of a processor", took)
		}
	})
}

// burnt is the time that the calling thread has had a processor for. Unlike time on
// the clock, it does not grow while others have the processor.
func burnt(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// copyState takes counters out of an encoded state whatever its checksum.
func copyState(to *state, encoded []byte, from state) {
	*to = from.clone()
	sl := to.slots[0]
	b := encoded[headerSize:]
	for i, field := range []*uint64{&sl.fresh, &sl.head, &sl.tail, &sl.queued, &sl.used} {
		*field = 0
		for j := range 8 {
			*field |= uint64(b[32+8*i+j]) << (8 * j)
		}
	}
	sl.full = b[13]&1 != 0
}
