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
//	    chain new {
//	        ip daddr @ingress4 counter drop
//	        ip6 daddr @ingress6 counter drop
//	        ip saddr @egress4 counter drop
//	        ip6 saddr @egress6 counter drop
//	    }
//	    chain forward {
//	        type filter hook forward priority filter; policy accept;
//	        ct state established,related accept
//	        goto new
//	    }
//	    chain output {
//	        type filter hook output priority filter; policy accept;
//	        ct state established,related accept
//	        fib saddr type local accept
//	        goto new
//	    }
//	}
//
// The first rule of both lets answers pass: a pod that is closed to others may itself ask,
// and the other way round. It also spares all that is under way the look into four
// sets. What conntrack takes for invalid, or does not track, gets no further than
// what is new. That nothing can be established to an address of before is seen to
// by DEL, which has the kernel forget its connections.
//
// What the node itself sends to its pods has a source of the node's and passes, as
// policies have it: kubelet's probes. With any other source it is IPVS, a mode of
// kube-proxy, that sends on what it has translated. What a pod sends to its own node
// passes, too, whatever policies there are.
//
// An address may also have rights that were its former holder's: see [Table.Begin].
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

// chains are all, each after those that it leads to.
func chains() []nft.Chain { return []nft.Chain{newChain, forwardChain, outputChain} }

var newChain = nft.Chain{Name: "new", Rules: []string{
	"ip daddr @ingress4 counter drop",
	"ip6 daddr @ingress6 counter drop",
	"ip saddr @egress4 counter drop",
	"ip6 saddr @egress6 counter drop",
}}

// counted are the directions of what newChain's rules drop.
var counted = []string{Ingress, Ingress, Egress, Egress}

var forwardChain = nft.Chain{Name: "forward", Base: "type filter hook forward priority filter; policy accept;", Rules: []string{
	"ct state established,related accept",
	"goto new",
}}

// outputChain needs what not every kernel has that has the rest (nft_fib), and nor
// does every node need it: see [Table.build].
var outputChain = nft.Chain{Name: "output", Base: "type filter hook output priority filter; policy accept;", Rules: []string{
	"ct state established,related accept",
	"fib saddr type local accept",
	"goto new",
}}

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

// build writes the table, whatever is left of it, and more in the same transaction.
// Where the kernel refuses that it is without what is there for IPVS only.
func (t *Table) build(c *nft.Conn, operation string, more func(*nft.Transaction)) (err error) {
	for _, without := range []string{"", outputChain.Name} {
		build := &nft.Transaction{}
		build.AddTable(id, "")
		for _, s := range sets() {
			build.AddSet(id, s)
		}
		for _, chain := range chains() {
			if chain.Name != without {
				build.RefillChain(id, chain)
			}
		}
		more(build)
		if err = t.run(c, operation, build); err == nil {
			return nil
		}
	}
	return err
}

// Mend makes the table's rules what they are to be, where it is there: it may be an
// earlier version's, or somebody may have changed it. Addresses that are closed stay so.
func (t *Table) Mend() error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	there, err := c.Tables()
	if err != nil || !slices.Contains(there, id) {
		return err
	}
	for _, chain := range chains() {
		var right bool
		if _, right, err = c.Chain(id, chain); err == nil && !right {
			err = t.build(c, "mend closed", func(*nft.Transaction) {})
			if err == nil {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("mending nftables table %s: %w", id, err)
		}
	}
	return nil
}

// Refused returns how many packets were dropped, by direction, since the table was made
// or mended. No table has dropped none.
func (t *Table) Refused() (map[string]uint64, error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var packets []uint64
	for range maxAttempts {
		if packets, err = c.Counted(id, newChain.Name); !errors.Is(err, nft.ErrInterrupted) {
			break
		}
	}
	all := map[string]uint64{Ingress: 0, Egress: 0}
	switch {
	case errors.Is(err, unix.ENOENT):
		return all, nil
	case err != nil:
		return nil, fmt.Errorf("reading the counters of nftables table %s: %w", id, err)
	}
	for i, n := range packets[:min(len(packets), len(counted))] {
		all[counted[i]] += n
	}
	return all, nil
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
