package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is a directory of records with what tests do to it.
type lab struct {
	testing.TB
	root string
	Options
}

// patience is how long one waits for the lock where that is not what is tested: on a
// busy machine sixty others may come first, each of them late.
const patience = 10 * time.Minute

func newLab(t testing.TB) *lab {
	root := t.TempDir()
	return &lab{TB: t, root: root, Options: Options{Directory: root, Network: "net", BootID: "this boot", LockTimeout: patience}}
}

func (l *lab) path(name string) string { return filepath.Join(l.root, "net", name) }

func (l *lab) open() *Store {
	l.Helper()
	s, err := Open(l.Options)
	if err != nil {
		l.Fatal(err)
	}
	return s
}

// add allocates for a container's eth0 and returns the addresses as text, or
// the error.
func (l *lab) add(pool Pool, id string, requested ...string) string {
	l.Helper()
	r := Request{Owner: Owner{id, "eth0"}, Sandbox: Sandbox{"/run/netns/" + strings.TrimSpace(id), 4, 4711}, Pool: pool}
	for _, text := range requested {
		r.Requested = append(r.Requested, netip.MustParseAddr(text))
	}
	got, err := l.open().Allocate(l.Context(), r)
	if err != nil {
		return err.Error()
	}
	texts := make([]string, len(got))
	for i, a := range got {
		texts[i] = a.Address.Addr().String()
	}
	return strings.Join(texts, " ")
}

// del releases for a container's eth0.
func (l *lab) del(id string) string {
	l.Helper()
	got, err := l.open().Release(l.Context(), Owner{id, "eth0"})
	if err != nil {
		return err.Error()
	}
	return texts(got)
}

func (l *lab) lookup(id, ifname string) string {
	l.Helper()
	got, err := l.open().Lookup(l.Context(), Owner{id, ifname})
	if err != nil {
		return err.Error()
	}
	return texts(got)
}

func texts(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

// want compares; what says what was done.
func (l *lab) want(what, got, want string) {
	l.Helper()
	if got != want {
		l.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

// write makes or replaces a file in the record directory.
func (l *lab) write(name, content string) {
	l.Helper()
	if err := os.MkdirAll(filepath.Dir(l.path(name)), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(l.path(name), []byte(content), 0o600); err != nil {
		l.Fatal(err)
	}
}

// hostLocalAdd does to the directory what host-local does when it hands out
// an address.
func (l *lab) hostLocalAdd(id, ifname, addr string, index int) {
	l.Helper()
	defer l.hostLocalLock()()
	f, err := os.OpenFile(l.path(addr), os.O_RDWR|os.O_EXCL|os.O_CREATE, 0o600)
	if err != nil {
		l.Fatal(err)
	}
	if _, err := f.WriteString(id + "\r\n" + ifname); err != nil {
		l.Fatal(err)
	}
	if err := f.Close(); err != nil {
		l.Fatal(err)
	}
	l.write(fmt.Sprint("last_reserved_ip.", index), addr)
}

// hostLocalDel does what host-local does when it releases: it walks over the
// whole tree and removes every file whose content is the owner's.
func (l *lab) hostLocalDel(id, ifname string) (removed int) {
	l.Helper()
	defer l.hostLocalLock()()
	for _, match := range []string{id + "\r\n" + ifname, id} {
		for _, path := range l.hostLocalFind(match) {
			if err := os.Remove(path); err != nil {
				l.Fatal(err)
			}
			removed++
		}
		if removed > 0 {
			break
		}
	}
	return removed
}

func (l *lab) hostLocalFind(match string) (paths []string) {
	_ = filepath.Walk(l.path(""), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) == match {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

func (l *lab) hostLocalLock() (unlock func()) {
	l.Helper()
	if err := os.MkdirAll(l.path(""), 0o755); err != nil {
		l.Fatal(err)
	}
	f, err := os.OpenFile(l.path("lock"), os.O_CREATE|os.O_RDONLY, 0o750)
	if err != nil {
		l.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		l.Fatal(err)
	}
	return func() { f.Close() }
}

// records returns the records as "address owner", sorted by address, read
// from the disk and not through the package.
func (l *lab) records() map[string]string {
	l.Helper()
	files, err := os.ReadDir(l.path(""))
	if err != nil && !os.IsNotExist(err) {
		l.Fatal(err)
	}
	records := map[string]string{}
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err != nil || !f.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(l.path(f.Name()))
		if err != nil {
			l.Fatal(err)
		}
		records[f.Name()] = strings.ReplaceAll(strings.TrimSpace(string(content)), "\r\n", " ")
	}
	return records
}

// intact fails the test unless the index on the disk is exactly what follows
// from the records.
func (l *lab) intact() {
	l.Helper()
	records := l.records()
	indexed := map[string]string{}
	for _, f := range l.readDir(".flatnet/owners") {
		e, ok := parseEntry(l.readlink(".flatnet/owners/" + f))
		if !ok || entryName(e.owner) != ".flatnet/owners/"+f {
			l.Errorf("entry %s is unreadable", f)
			continue
		}
		for _, a := range e.addresses() {
			if other, ok := indexed[a.String()]; ok {
				l.Errorf("%s is in the entries of both %s and %s", a, e.owner, other)
			}
			indexed[a.String()] = strings.TrimSpace(e.owner.ContainerID + " " + e.owner.Interface)
		}
	}
	for a, o := range records {
		if indexed[a] != o {
			l.Errorf("record %s is of %q, the index says %q", a, o, indexed[a])
		}
	}
	for a, o := range indexed {
		if records[a] == "" {
			l.Errorf("the index says that %q holds %s, but there is no record", o, a)
		}
	}
	places := map[string]bool{}
	for _, a := range l.readDir(".flatnet/released") {
		if records[a] != "" {
			l.Errorf("%s is reserved and released", a)
		}
		place := l.readlink(".flatnet/released/" + a)
		places[place] = true
		if text := l.readlink(".flatnet/sets/" + place); text != a {
			l.Errorf("%s should be at place %s of its queue, where %q is", a, place, text)
		}
	}
	for _, set := range l.readDir(".flatnet/sets") {
		for _, number := range l.readDir(".flatnet/sets/" + set) {
			if number != "ranges" && !places[set+"/"+number] {
				l.Errorf("nothing points at place %s of the queue of %s", number, set)
			}
		}
	}
	for _, f := range l.readDir(".flatnet") {
		if !slices.Contains([]string{"state", "boot", "owners", "released", "sets"}, f) {
			l.Errorf("%s was left behind", f)
		}
	}
	content, err := os.ReadFile(l.path(".flatnet/state"))
	if err != nil {
		l.Error(err)
		return
	}
	st, ok := decodeState(content)
	if !ok || st.busy {
		l.Errorf("the state is unreadable (%v) or busy (%v)", !ok, st.busy)
	}
	for _, sl := range st.slots {
		n := 0
		for _, name := range l.readDir(".flatnet/sets/" + sl.key.String()) {
			if name != rangesName {
				n++
			}
		}
		if sl.queued != uint64(n) {
			l.Errorf("the queue of %s is %d long, the state says %d", sl.key, n, sl.queued)
		}
	}
}

func (l *lab) readDir(name string) []string {
	l.Helper()
	files, err := os.ReadDir(l.path(name))
	if err != nil {
		l.Error(err)
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name()
	}
	return names
}

func (l *lab) readlink(name string) string {
	l.Helper()
	text, err := os.Readlink(l.path(name))
	if err != nil {
		l.Error(err)
	}
	return text
}

// snapshot returns the whole tree as text, to see whether anything changed.
func (l *lab) snapshot() string {
	l.Helper()
	var b strings.Builder
	err := filepath.Walk(l.root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var content []byte
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			text, _ := os.Readlink(path)
			content = []byte(text)
		case info.Mode().IsRegular():
			content, _ = os.ReadFile(path)
		}
		fmt.Fprintf(&b, "%s %s %q %s\n", path, info.Mode(), content, info.ModTime())
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
	return b.String()
}

func as[T error](t testing.TB, err error) T {
	t.Helper()
	e, ok := errors.AsType[T](err)
	if !ok {
		t.Errorf("%T %v is no %T", err, err, e)
	}
	return e
}
