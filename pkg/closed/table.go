// Package closed keeps new pods closed that policies are about, from their first
// packet until the agent has their rules in place. The plugin knows from a file
// which namespaces these are (see [List]), and puts a pod's addresses into sets
// before it connects the pod; the agent takes them out.
//
//	table inet flatnet-closed {
//	    set ingress4 { type ipv4_addr; }
//	    set ingress6 { type ipv6_addr; }
//	    set egress4  { type ipv4_addr; }
//	    set egress6  { type ipv6_addr; }
//	    chain forward {
//	        type filter hook forward priority filter; policy accept;
//	        ct state established,related accept
//	        ip daddr @ingress4 drop
//	        ip6 daddr @ingress6 drop
//	        ip saddr @egress4 drop
//	        ip6 saddr @egress6 drop
//	    }
//	}
//
// The first rule lets answers pass: a pod that is closed to others may itself ask,
// and the other way round. It also spares all that is under way the look into four
// sets. What conntrack takes for invalid, or does not track, gets no further than
// what is new. That nothing can be established to an address of before is seen to
// by DEL, which has the kernel forget its connections.
//
// What the node itself sends to its pods is not forwarded and passes, as policies
// have it: kubelet's probes.
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
	// Step is called before every change, with its name; an error takes the
	// place of the change. Tests make changes fail with it.
	Step func(operation string) error
}

// id is the table's. Nobody writes to it.
var id = nft.ID{Family: nft.INet, Name: "flatnet-closed"}

// chainName is that of the one chain.
const chainName = "forward"

func chain() nft.Chain {
	return nft.Chain{Name: chainName, Base: "type filter hook forward priority filter; policy accept;", Rules: []string{
		"ct state established,related accept",
		"ip daddr @ingress4 drop",
		"ip6 daddr @ingress6 drop",
		"ip saddr @egress4 drop",
		"ip6 saddr @egress6 drop",
	}}
}

// set is the set of a direction's addresses of one family.
func set(direction string, ipv6 bool) nft.Set {
	if ipv6 {
		return nft.Set{Name: direction + "6", Type: "type ipv6_addr"}
	}
	return nft.Set{Name: direction + "4", Type: "type ipv4_addr"}
}

func sets() []nft.Set {
	return []nft.Set{set(Ingress, false), set(Ingress, true), set(Egress, false), set(Egress, true)}
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
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	elements := func(to *nft.Transaction) {
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
	// Where the table is there, and nearly always it is, its rules are left as they
	// are: to write them anew would have everybody wait for the end of the old ones.
	join := &nft.Transaction{}
	elements(join)
	err = t.run(c, "close", join)
	if errors.Is(err, unix.ENOENT) {
		build := &nft.Transaction{}
		build.AddTable(id, "")
		for _, s := range sets() {
			build.AddSet(id, s)
		}
		build.RefillChain(id, chain())
		elements(build)
		err = t.run(c, "make closed", build)
	}
	if err != nil {
		return fmt.Errorf("closing %v in nftables table %s: %w", addresses, id, err)
	}
	return nil
}

// Open opens addresses, in both directions. One that is not closed, or no table, is
// no error, and then nothing is changed.
//
// It is no promise for what comes after: an ADD that is under way, with its record
// written already, may be about to close. Whoever opens by records, and not only
// what is attached for certain, has to look at [Table.Addresses] again later.
func (t *Table) Open(addresses ...netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	// To delete what is not there would fail all, so it is looked at first; somebody
	// else may write in between.
	for range maxAttempts {
		if err = t.open(c, addresses); !overtaken(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("opening %v in nftables table %s: %w", addresses, id, err)
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

// open deletes those elements that are there. It fails as overtaken where they are
// no longer.
func (t *Table) open(c *nft.Conn, addresses []netip.Addr) error {
	deletion, found := &nft.Transaction{}, false
	for _, s := range sets() {
		var closed nft.Ranges
		err := addressesOf(c, s, func(a netip.Addr) {
			if slices.Contains(addresses, a) {
				closed = append(closed, nft.Range{First: a, Last: a})
			}
		})
		if err != nil {
			return err
		}
		if len(closed) > 0 {
			deletion.DeleteElements(id, s, closed.All)
			found = true
		}
	}
	if !found {
		return nil
	}
	return t.run(c, "open", deletion)
}

// Addresses returns the addresses that are closed, in whichever direction, sorted.
func (t *Table) Addresses() (all []netip.Addr, err error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for range maxAttempts {
		if all, err = closedIn(c); !errors.Is(err, nft.ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading nftables table %s: %w", id, err)
	}
	return all, nil
}

func closedIn(c *nft.Conn) (all []netip.Addr, err error) {
	for _, s := range sets() {
		if err := addressesOf(c, s, func(a netip.Addr) { all = append(all, a) }); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), nil
}

// addressesOf calls yield for every address of a set. No set has none.
func addressesOf(c *nft.Conn, s nft.Set, yield func(netip.Addr)) error {
	err := c.Elements(id, s, func(e nft.Element) { yield(nft.RangeIn(e).First) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Clear removes the table, when no attachment is left on the node. It stays where an
// address in it shows that somebody whose records are elsewhere still uses it.
func (t *Table) Clear() error {
	closed, err := t.Addresses()
	if err != nil || len(closed) > 0 {
		return err
	}
	_, err = t.Remove()
	return err
}

// Remove removes the table, and with it opens all that is closed. It returns what it
// removed, in words; "" where there was no table.
func (t *Table) Remove() (removed string, err error) {
	c, err := nft.Open()
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.RemoveTable(id, func(deletion *nft.Transaction) error { return t.run(c, "delete closed", deletion) })
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
