package masquerade

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// apply makes the differences good in one transaction: the kernel takes all of
// it or nothing, and no packet meets a half.
func (c *connection) apply(r repair, exists bool, want content) error {
	var err error
	if r.remake {
		err = c.remake(exists, want)
	} else {
		err = c.edit(r)
	}
	if err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("writing nftables table inet %s: %w: the socket's buffer is too small "+
				"(without CAP_NET_ADMIN on the machine it has at most twice net.core.wmem_max)", tableName, err)
		}
		return fmt.Errorf("writing nftables table inet %s: %w", tableName, err)
	}
	return nil
}

// remake puts a new table in the place of whatever is there. The kernel hooks
// the new chain in before the old one, so a packet that is between the two when
// the new generation begins passes both empty: this is for where nothing else
// helps.
// Equivalent to: `nft -f` of "delete table inet flatnet" and [Ruleset.String].
func (c *connection) remake(exists bool, want content) error {
	if exists {
		c.DelTable(table())
	}
	if want.empty() {
		return nil
	}
	c.AddTable(table())
	return c.edit(repair{addSets: want.sets, addChains: want.chains})
}

// edit changes only what differs. A chain's rules, old or new, are all in force
// for any packet. The order is that of who needs whom: rules go first and come
// last; and within a set deletions come first, as an interval may be in the way
// of another one.
func (c *connection) edit(r repair) error {
	if r.wake {
		c.AddTable(table())
	}
	for _, ch := range slices.Concat(r.dropChains, r.refill) {
		c.FlushChain(ch.nft())
	}
	for _, s := range r.dropSets {
		c.DelSet(s.nft())
	}
	for _, ch := range r.dropChains {
		c.DelChain(ch.nft())
	}
	for _, ch := range r.addChains {
		c.AddChain(ch.nft())
	}
	for i, s := range r.addSets {
		// The library would take the number from a global counter.
		made := s.nft()
		made.ID = uint32(i + 1)
		if err := c.AddSet(made, nil); err != nil {
			return fmt.Errorf("encoding nftables set %s: %w", s.name, err)
		}
		if err := c.each(s.elementsOf(s.elements), made, c.SetAddElements); err != nil {
			return err
		}
	}
	for _, e := range r.edits {
		if err := c.each(e.set.elementsOf(e.extra), e.set.nft(), c.SetDeleteElements); err != nil {
			return err
		}
		if err := c.each(e.set.elementsOf(e.missing), e.set.nft(), c.SetAddElements); err != nil {
			return err
		}
	}
	for _, ch := range slices.Concat(r.refill, r.addChains) {
		c.fill(ch)
	}
	return nil
}

func (c *connection) fill(ch chain) {
	for _, r := range ch.rules {
		c.AddRule(&nftables.Rule{Table: table(), Chain: ch.nft(), Exprs: r.code})
	}
}

// each puts the elements into as many messages as they need.
func (c *connection) each(elements []nftables.SetElement, s *nftables.Set, f func(*nftables.Set, []nftables.SetElement) error) error {
	for part := range slices.Chunk(elements, chunk) {
		if err := f(s, part); err != nil {
			return fmt.Errorf("encoding elements of nftables set %s: %w", s.Name, err)
		}
	}
	return nil
}

// elementsOf returns spans as the kernel takes them: of an interval, where it
// begins and where it no longer holds.
func (s set) elementsOf(spans []span) []nftables.SetElement {
	all := make([]nftables.SetElement, 0, 2*len(spans))
	for _, e := range spans {
		all = append(all, nftables.SetElement{Key: e.first.AsSlice()})
		if end := e.last.Next(); s.interval && end.IsValid() {
			all = append(all, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return all
}

func (s set) nft() *nftables.Set {
	return &nftables.Set{Table: table(), Name: s.name, KeyType: s.keyType(), Interval: s.interval}
}

func (c chain) nft() *nftables.Chain {
	return &nftables.Chain{
		Table: table(), Name: c.name, Type: c.kind,
		Hooknum: nftables.ChainHookRef(c.hook), Priority: nftables.ChainPriorityRef(c.priority),
	}
}
