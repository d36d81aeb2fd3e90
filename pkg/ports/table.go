package ports

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/filelock"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Table is the kernel's table, in the caller's network namespace. Any number of
// processes may add and remove at the same time: whether a port is free is looked at,
// and the port taken, while the lock of a file is held, which nobody needs who has no
// ports. Whoever clears has to be alone with the table, and the caller sees to that.
type Table struct {
	// Lock is the file's path. Its directory has to be there.
	Lock string
	// Living reports whether a pod with an address is attached to the node. A port that
	// leads to one that is not is left over, and free. It is asked about ports that are
	// wanted and not free.
	Living func(netip.Addr) (bool, error)
	// Step is called before every change, with its name; an error takes the
	// place of the change. Tests make changes fail with it.
	Step func(operation string) error

	held *nft.Conn
}

// Hold keeps one socket for Present, Make and Add until release is called. To close one
// waits for what others are removing at that moment, so who does all three on a busy
// node is best off with one.
func (t *Table) Hold() (release func(), err error) {
	if t.held, err = nft.Open(); err != nil {
		return nil, err
	}
	return func() {
		t.held.Close()
		t.held = nil
	}, nil
}

// open returns the socket that is held, or a new one.
func (t *Table) open() (c *nft.Conn, done func(), err error) {
	if t.held != nil {
		return t.held, func() {}, nil
	}
	if c, err = nft.Open(); err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}

// Present reports whether the table is there.
func (t *Table) Present() (bool, error) {
	c, done, err := t.open()
	if err != nil {
		return false, err
	}
	defer done()
	there, err := c.HasChain(ID, guardName)
	if err != nil {
		return false, fmt.Errorf("looking for nftables table %s: %w", ID, err)
	}
	return there, nil
}

// Make makes the table with its rules, and keeps what is there of both.
func (t *Table) Make() error {
	c, done, err := t.open()
	if err != nil {
		return err
	}
	defer done()
	return t.make(c)
}

func (t *Table) make(c *nft.Conn) error {
	if err := t.run(c, "make ports", build()); err != nil {
		return fmt.Errorf("making nftables table %s: %w", ID, err)
	}
	return nil
}

// Add gives the pod its ports, all of them or none, and makes the table where it is
// missing. It fails with a [Conflict] where one is another pod's; what the pod has
// already it keeps.
func (t *Table) Add(ctx context.Context, pod Pod) error {
	wanted := pod.entries()
	if len(wanted) == 0 {
		return nil
	}
	c, done, err := t.open()
	if err != nil {
		return err
	}
	defer done()
	return t.locked(ctx, func() error {
		err := t.add(c, wanted)
		if errors.Is(err, unix.ENOENT) {
			if err := t.make(c); err != nil {
				return err
			}
			err = t.add(c, wanted)
		}
		if err != nil {
			return fmt.Errorf("giving host ports: %w", err)
		}
		return nil
	})
}

// attempts is how often somebody without this lock may write in between.
const attempts = 10

func (t *Table) add(c *nft.Conn, wanted []entry) (err error) {
	clash := false
	for range attempts {
		var leftover []entry
		if leftover, err = t.inTheWay(c, wanted, clash); err == nil {
			changes := &nft.Transaction{}
			for _, s := range sets() {
				changes.DeleteElements(ID, s, in(s, leftover))
			}
			for _, s := range sets() {
				changes.AddElements(ID, s, in(s, wanted))
			}
			err = t.run(c, "add ports", changes)
		}
		// A key that is there with another value. Nearly always it is free, so it is
		// looked at only now.
		clashed := errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)
		clash = clash || clashed
		if !clashed && !errors.Is(err, nft.ErrInterrupted) && !(errors.Is(err, unix.ENOENT) && len(leftover) > 0) {
			return err
		}
	}
	return err
}

// inTheWay returns the elements that have to go before others can come, all of which
// lead to pods that are gone. It fails with a [Conflict] where a pod is not. Without keys
// the wanted elements' own keys are not looked at: the kernel refuses them where they lead
// elsewhere.
func (t *Table) inTheWay(c *nft.Conn, wanted []entry, keys bool) (leftover []entry, err error) {
	singles := map[family]func() ([]nft.Element, error){}
	for _, f := range families {
		singles[f] = sync.OnceValues(func() ([]nft.Element, error) { return elements(c, f.one()) })
	}
	for _, w := range wanted {
		if !w.isMapping() {
			continue
		}
		found, err := overlapping(c, w, keys, singles[w.in])
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if f.set.Name == w.set.Name && f.element.Key == w.element.Key && f.element.Value == w.element.Value {
				continue
			}
			has := w.in.taken(f.set, f.element)
			living, err := t.Living(has.Leads.Addr())
			if err != nil {
				return nil, err
			}
			if living {
				return nil, &Conflict{Wanted: w.mapping, Has: has.Mapping, Pod: has.Pod, Leads: has.Leads}
			}
			if !slices.ContainsFunc(leftover, func(e entry) bool { return e.set.Name == f.set.Name && e.element.Key == f.element.Key }) {
				leftover = append(leftover, f)
			}
		}
	}
	return leftover, nil
}

// overlapping returns the elements that a packet could mean as well. singles are those of
// the family's map for single addresses.
func overlapping(c *nft.Conn, w entry, key bool, singles func() ([]nft.Element, error)) (found []entry, err error) {
	m := w.mapping
	get := func(s nft.Set, key string) error {
		e, is, err := c.Element(ID, s, key)
		if is {
			found = append(found, entry{set: s, element: e, in: w.in})
		}
		return err
	}
	if key {
		if err := get(w.set, w.element.Key); err != nil {
			return nil, err
		}
	}
	if !m.allOf(bool(w.in)) {
		return found, get(w.in.any(), string(nft.Key(nil).Protocol(protocols[m.Protocol]).Port(m.HostPort)))
	}
	all, err := singles()
	for _, e := range all {
		if has := w.in.taken(w.in.one(), e); has.HostPort == m.HostPort && has.Protocol == m.Protocol {
			found = append(found, entry{set: w.in.one(), element: e, in: w.in})
		}
	}
	return found, err
}

// elements returns those of a set; no set has none.
func elements(c *nft.Conn, s nft.Set) (all []nft.Element, err error) {
	err = c.Elements(ID, s, func(e nft.Element) { all = append(all, e) })
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return all, err
}

// Remove takes from the pod the ports that are its own; another pod's of the same number
// stay. The kernel then waits in the background until no packet can be using the
// elements, some tens of milliseconds; settle waits for the end of that, which is best
// done when everything else is done. It has to be called in any case.
func (t *Table) Remove(ctx context.Context, pod Pod) (settle func(), err error) {
	entries := pod.entries()
	if len(entries) == 0 {
		return func() {}, nil
	}
	c, err := nft.Open()
	if err != nil {
		return func() {}, err
	}
	// What was never given, or is taken back already, costs no lock, nor its file.
	if own, err := present(c, entries); err != nil || len(own) == 0 {
		if err != nil {
			err = fmt.Errorf("taking host ports back: %w", err)
		}
		return c.Close, err
	}
	err = t.locked(ctx, func() error {
		for range attempts {
			if err = t.remove(c, entries); !errors.Is(err, unix.ENOENT) {
				break // or else somebody without this lock was faster
			}
		}
		return err
	})
	if err != nil {
		return c.Close, fmt.Errorf("taking host ports back: %w", err)
	}
	return c.Close, nil
}

func (t *Table) remove(c *nft.Conn, entries []entry) error {
	own, err := present(c, entries)
	if err != nil || len(own) == 0 {
		return err
	}
	changes := &nft.Transaction{}
	for _, s := range sets() {
		changes.DeleteElements(ID, s, in(s, own))
	}
	return t.run(c, "delete ports", changes)
}

// present returns those of the entries that are in the kernel as they are.
func present(c *nft.Conn, entries []entry) (all []entry, err error) {
	for _, e := range entries {
		found, is, err := c.Element(ID, e.set, e.element.Key)
		if err != nil {
			return nil, err
		}
		if is && found.Value == e.element.Value {
			all = append(all, e)
		}
	}
	return all, nil
}

// Clear removes the table, when no attachment is left on the node. It stays where a port
// in it shows that somebody whose records are elsewhere still uses it.
func (t *Table) Clear() error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	there, err := c.HasChain(ID, guardName)
	if err != nil || !there {
		return err
	}
	used, err := list(c)
	if err != nil || len(used) > 0 {
		return err
	}
	_, err = t.delete(c)
	return err
}

// RemoveAll removes the table, whoever uses it. It returns what it removed, in words; ""
// where there was no table.
func (t *Table) RemoveAll() (removed string, err error) {
	c, err := nft.Open()
	if err != nil {
		return "", err
	}
	defer c.Close()
	return t.delete(c)
}

func (t *Table) delete(c *nft.Conn) (removed string, err error) {
	return c.RemoveTable(ID, func(deletion *nft.Transaction) error { return t.run(c, "delete table ports", deletion) })
}

// locked calls f while no other process has the lock.
func (t *Table) locked(ctx context.Context, f func() error) error {
	file, err := os.OpenFile(t.Lock, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(t.Lock), 0o700); err != nil {
			return fmt.Errorf("opening lock: %w", err)
		}
		file, err = os.OpenFile(t.Lock, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return fmt.Errorf("opening lock: %w", err)
	}
	defer file.Close()
	if err := filelock.Flock(ctx, int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", t.Lock, err)
	}
	return f()
}

// run runs a transaction, unless a test's step takes its place.
func (t *Table) run(c *nft.Conn, operation string, changes *nft.Transaction) error {
	if t.Step != nil {
		if err := t.Step("nft " + operation); err != nil {
			return err
		}
	}
	return c.Run(changes)
}

// LockIn is the lock's file of a state directory.
func LockIn(stateDirectory string) string { return filepath.Join(stateDirectory, "ports.lock") }
