package rules

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// span is a run of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

// ranges are spans that neither overlap nor touch, in order: an interval set of
// nftables takes no others.
type ranges []span

// with returns the union of the ranges and the prefixes.
func (r ranges) with(prefixes []netip.Prefix) ranges {
	all := slices.Clone(r)
	for _, p := range prefixes {
		all = append(all, span{p.Masked().Addr(), lastOf(p)})
	}
	slices.SortFunc(all, func(a, b span) int { return a.first.Compare(b.first) })
	var merged ranges
	for _, s := range all {
		if n := len(merged); n > 0 && touches(merged[n-1], s) {
			if merged[n-1].last.Less(s.last) {
				merged[n-1].last = s.last
			}
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// touches reports whether b, which does not begin before a, leaves no gap.
func touches(a, b span) bool {
	next := a.last.Next()
	return !next.IsValid() || b.first.Compare(next) <= 0
}

func (r ranges) equal(o ranges) bool { return slices.Equal(r, o) }

// elements returns the ranges as nftables wants them: where each begins, and
// where it no longer holds.
func (r ranges) elements() []nftables.SetElement {
	var all []nftables.SetElement
	for _, s := range r {
		all = append(all, nftables.SetElement{Key: s.first.AsSlice()})
		if end := s.last.Next(); end.IsValid() {
			all = append(all, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return all
}

// rangesOf is the inverse of elements. The kernel lists them in no given order.
func rangesOf(elements []nftables.SetElement) ranges {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int { return slices.Compare(a.Key, b.Key) })
	var all ranges
	for i, e := range elements {
		first, ok := netip.AddrFromSlice(e.Key)
		if e.IntervalEnd || !ok {
			continue
		}
		last := lastOf(netip.PrefixFrom(first, 0))
		if i+1 < len(elements) {
			if end, ok := netip.AddrFromSlice(elements[i+1].Key); ok {
				last = end.Prev()
			}
		}
		all = append(all, span{first, last})
	}
	return all
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}
