package masquerade

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// read returns what the table holds, or nil where there is none. Several dumps
// are one picture only if no transaction was between them; on a node whose
// ruleset never stands still, the last picture is taken. What is wrong with it
// is found out when it is repaired, since an element can be added twice but
// not deleted twice.
// Equivalent to: `nft list table inet flatnet`.
func (c *connection) read() (*content, error) {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		before, err := c.generation()
		if err != nil {
			return nil, fmt.Errorf("reading nftables generation: %w", err)
		}
		found, errRead := c.dump()
		after, err := c.generation()
		if err != nil {
			return nil, fmt.Errorf("reading nftables generation: %w", err)
		}
		if before == after || attempt == attempts {
			return found, errRead
		}
	}
}

func (c *connection) dump() (*content, error) {
	tables, err := c.ListTablesOfFamily(family)
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if i < 0 {
		return nil, nil
	}
	found := &content{dormant: tables[i].Flags != 0}
	sets, err := c.GetSets(table())
	if err != nil {
		return nil, fmt.Errorf("listing nftables sets of table inet %s: %w", tableName, err)
	}
	for _, s := range sets {
		// It belongs to a rule, and comes and goes with it.
		if s.Anonymous {
			continue
		}
		elements, err := c.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("reading nftables set inet %s %s: %w", tableName, s.Name, err)
		}
		found.sets = append(found.sets, setFrom(s, elements))
	}
	chains, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table == nil || ch.Table.Name != tableName {
			continue
		}
		rules, err := c.GetRules(table(), ch)
		if err != nil {
			return nil, fmt.Errorf("reading nftables chain inet %s %s: %w", tableName, ch.Name, err)
		}
		found.chains = append(found.chains, chainFrom(ch, rules))
	}
	return found, nil
}

func setFrom(s *nftables.Set, elements []nftables.SetElement) set {
	found := set{name: s.Name, is6: s.KeyType.Name == nftables.TypeIP6Addr.Name, interval: s.Interval}
	found.odd = s.KeyType.Name != found.keyType().Name || s.IsMap || s.Constant || s.HasTimeout || s.Dynamic || s.Concatenation || s.Size != 0
	switch {
	case found.odd: // its elements do not matter
	case s.Interval:
		found.elements = intervals(elements)
	default:
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				found.elements = append(found.elements, span{a, a})
			}
		}
		sort(found.elements, span.compare)
	}
	return found
}

// intervals puts beginnings and ends together, which the kernel lists in no
// given order. An interval without an end goes on to the last address; an end
// without a beginning, which nft puts at the family's first address, means
// nothing.
func intervals(elements []nftables.SetElement) []span {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int {
		if c := slices.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		// One interval ends where the next one begins.
		switch {
		case a.IntervalEnd == b.IntervalEnd:
			return 0
		case a.IntervalEnd:
			return -1
		}
		return 1
	})
	all := make([]span, 0, len(elements)/2+1)
	var first netip.Addr // of the interval that is open
	for _, e := range elements {
		a, ok := netip.AddrFromSlice(e.Key)
		if !ok {
			continue
		}
		if first.IsValid() {
			all = append(all, span{first, a.Prev()})
		}
		first = netip.Addr{}
		if !e.IntervalEnd {
			first = a
		}
	}
	if first.IsValid() {
		all = append(all, span{first, lastOf(netip.PrefixFrom(first, 0))})
	}
	return all
}

func chainFrom(ch *nftables.Chain, rules []*nftables.Rule) chain {
	found := chain{name: ch.Name, kind: ch.Type}
	// A chain without a hook is nobody's way: its kind is empty and differs.
	if ch.Hooknum != nil && ch.Priority != nil {
		found.hook, found.priority = *ch.Hooknum, *ch.Priority
	}
	found.drops = ch.Policy != nil && *ch.Policy != nftables.ChainPolicyAccept
	for _, r := range rules {
		found.rules = append(found.rules, rule{code: r.Exprs})
	}
	return found
}
