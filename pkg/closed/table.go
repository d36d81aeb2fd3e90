package closed

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Table is the kernel's table, in the caller's network namespace. Any number of
// processes may close and open at the same time; whoever clears has to be alone
// with it, and the caller sees to that.
type Table struct {
	// Lasting has the socket stay open from call to call, for who opens pods again and
	// again: the closing of one waits for what was deleted (see [nft.Conn.Close]). All
	// calls are made in one network namespace then, one at a time.
	Lasting bool
	// Step is called before every change, with its name; an error takes the
	// place of the change. Tests make changes fail with it.
	Step func(operation string) error

	socket *nft.Conn // that lasts
}

// connect returns a socket, and what has to be called when it is not used any more.
func (t *Table) connect() (c *nft.Conn, done func(), err error) {
	if t.socket != nil {
		return t.socket, func() {}, nil
	}
	if c, err = nft.Open(); err != nil {
		return nil, nil, err
	}
	if t.Lasting {
		t.socket = c
		return c, func() {}, nil
	}
	return c, c.Close, nil
}

// Watcher returns what calls changed when somebody has touched the table, and when that
// may have happened unseen; changed must not wait.
func Watcher(changed func()) nft.Listener {
	return &nft.Watcher{Tables: []nft.ID{id}, Own: func() uint32 { return 0 }, Changed: changed}
}

// Close closes addresses, in the directions that are given, and makes the table
// where it is missing. An address that is closed already stays it.
func (t *Table) Close(addresses []netip.Addr, ingress, egress bool) error {
	if len(addresses) == 0 || !ingress && !egress {
		return nil
	}
	c, done, err := t.connect()
	if err != nil {
		return err
	}
	defer done()
	return t.close(c, addresses, ingress, egress)
}

func (t *Table) close(c *nft.Conn, addresses []netip.Addr, ingress, egress bool) error {
	// Where the table is there, and nearly always it is, its rules are left as they
	// are: to write them anew would have everybody wait for the end of the old ones.
	join := &nft.Transaction{}
	addClosed(join, addresses, ingress, egress)
	err := t.run(c, "close", join)
	if errors.Is(err, unix.ENOENT) {
		err = t.build(c, "make closed", func(to *nft.Transaction) { addClosed(to, addresses, ingress, egress) })
	}
	if err != nil {
		return fmt.Errorf("closing %v in nftables table %s: %w", addresses, id, err)
	}
	return nil
}

// addClosed adds addresses to the sets of directions.
func addClosed(to *nft.Transaction, addresses []netip.Addr, ingress, egress bool) {
	for _, s := range []struct {
		direction string
		wanted    bool
	}{{Ingress, ingress}, {Egress, egress}} {
		for _, ipv6 := range []bool{false, true} {
			of := ofFamily(addresses, ipv6)
			if s.wanted && len(of) > 0 {
				to.AddElements(id, set(s.direction, ipv6), of.All)
			}
		}
	}
}

// Open opens addresses, in both directions. One that is not closed, or no table, is
// no error, and then nothing is changed.
//
// It is no promise for what comes after: an ADD that is under way, with its record
// written already, may be about to close. Whoever opens by records, and not only
// what is attached for certain, has to look at [Table.Addresses] again later.
func (t *Table) Open(addresses ...netip.Addr) error { return t.Admit(addresses, nil) }

// Admit opens addresses, and has the rules of policies hold again for those that were
// evicted (see [Table.Begin]), in one transaction: the kernel lets one that deletes wait
// until the last one has come to its end, for which it waits until no packet is under way.
// Who is not evicted is no error either.
func (t *Table) Admit(open, readmit []netip.Addr) error {
	if len(open)+len(readmit) == 0 {
		return nil
	}
	c, done, err := t.connect()
	if err != nil {
		return err
	}
	defer done()
	// To delete what is not there would fail all, so it is looked at first; somebody
	// else may write in between.
	for range maxAttempts {
		if err = t.admit(c, open, readmit); !overtaken(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("opening %v in nftables table %s, and having %s hold for %v: %w", open, id, PolicyTable, readmit, err)
	}
	return nil
}

// maxAttempts is how often others may write while a set is read, which takes some
// microseconds.
const maxAttempts = 1000

// overtaken reports whether something has changed since it was read.
func overtaken(err error) bool {
	return errors.Is(err, nft.ErrInterrupted) || errors.Is(err, unix.ENOENT)
}

// admit deletes those elements that are there. It fails as overtaken where they are no
// longer.
func (t *Table) admit(c *nft.Conn, open, readmit []netip.Addr) error {
	deletion := &nft.Transaction{}
	remove := func(table nft.ID, s nft.Set, addresses []netip.Addr) error {
		if len(addresses) == 0 {
			return nil
		}
		var there nft.Ranges
		err := addressesOf(c, table, s, func(a netip.Addr) {
			if slices.Contains(addresses, a) {
				there = append(there, nft.Range{First: a, Last: a})
			}
		})
		if len(there) > 0 {
			deletion.DeleteElements(table, s, there.All)
		}
		return err
	}
	for _, ipv6 := range []bool{false, true} {
		if err := remove(PolicyTable, Evicted(ipv6), readmit); err != nil {
			return err
		}
	}
	for _, s := range sets() {
		if err := remove(id, s, open); err != nil {
			return err
		}
	}
	if deletion.Empty() {
		return nil
	}
	return t.run(c, "open", deletion)
}

// Addresses returns the addresses that are closed, in whichever direction, sorted.
func (t *Table) Addresses() (all []netip.Addr, err error) {
	c, done, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer done()
	err = nft.Steadily(maxAttempts, func() error {
		all, err = closedIn(c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading nftables table %s: %w", id, err)
	}
	return all, nil
}

func closedIn(c *nft.Conn) (all []netip.Addr, err error) {
	for _, s := range sets() {
		if err := addressesOf(c, id, s, func(a netip.Addr) { all = append(all, a) }); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), nil
}

// addressesOf calls yield for every address of a set. No set has none.
func addressesOf(c *nft.Conn, table nft.ID, s nft.Set, yield func(netip.Addr)) error {
	err := c.Elements(table, s, func(e nft.Element) { yield(nft.RangeIn(e).First) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// ofFamily returns the addresses of a family as elements.
func ofFamily(addresses []netip.Addr, ipv6 bool) (all nft.Ranges) {
	for _, a := range addresses {
		if a.Is6() == ipv6 {
			all = append(all, nft.Range{First: a, Last: a})
		}
	}
	return all
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
