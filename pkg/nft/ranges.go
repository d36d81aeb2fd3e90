package nft

import (
	"net/netip"
	"slices"
	"strings"
)

// Range is a run of addresses of one family, both ends included.
type Range struct{ First, Last netip.Addr }

// RangeOf returns the addresses of a prefix, host bits or not. One of IPv4 that is
// written as IPv6 (::ffff:10.0.0.0/104) is one of IPv4.
func RangeOf(p netip.Prefix) Range {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return Range{p.Masked().Addr(), lastOf(p)}
}

// RangeIn returns the addresses that an element of a set of addresses is.
func RangeIn(e Element) Range {
	first, _ := netip.AddrFromSlice([]byte(e.Key))
	last, is := netip.AddrFromSlice([]byte(e.End))
	if !is {
		last = first
	}
	return Range{first, last}
}

// String is how nft writes a run: an address, a prefix or a range.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	if p, is := r.Prefix(); is {
		return p.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Prefix returns the prefix that has just these addresses, if there is one.
func (r Range) Prefix() (netip.Prefix, bool) {
	for bits := r.First.BitLen(); bits >= 0; bits-- {
		if p := netip.PrefixFrom(r.First, bits); p.Masked().Addr() == r.First && lastOf(p) == r.Last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Compare orders by the first address, and then by the last.
func (r Range) Compare(o Range) int {
	if c := r.First.Compare(o.First); c != 0 {
		return c
	}
	return r.Last.Compare(o.Last)
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw, bits := p.Addr().As16(), p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits / 8; i < len(raw); i++ {
		raw[i] |= 0xff >> max(0, bits-8*i)
	}
	last := netip.AddrFrom16(raw)
	if p.Addr().Is4() {
		return last.Unmap()
	}
	return last
}

// Ranges are the elements of a set of addresses: in order, and none overlaps another
// one, which an interval set would not take. Where the set has no flag interval, each
// is a single address.
type Ranges []Range

// Len returns how many there are.
func (r Ranges) Len() int { return len(r) }

// All calls yield for each.
func (r Ranges) All(yield func(Element) bool) {
	for _, one := range r {
		if !yield(one.element()) {
			return
		}
	}
}

func (r Range) element() Element {
	return Element{Key: string(r.First.AsSlice()), End: string(r.Last.AsSlice())}
}

// Find returns the one that begins where a key says.
func (r Ranges) Find(key string) (Element, bool) {
	a, _ := netip.AddrFromSlice([]byte(key))
	i, found := slices.BinarySearchFunc(r, a, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	if !found {
		return Element{}, false
	}
	return r[i].element(), true
}

// Contains reports whether one of them holds an address.
func (r Ranges) Contains(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(r, a, func(r Range, a netip.Addr) int {
		switch {
		case r.Last.Less(a):
			return -1
		case a.Less(r.First):
			return 1
		}
		return 0
	})
	return found
}

// With returns the union with prefixes, as few runs as have the same addresses.
func (r Ranges) With(prefixes ...netip.Prefix) Ranges {
	all := slices.Clone([]Range(r))
	for _, p := range prefixes {
		all = append(all, RangeOf(p))
	}
	return Union(all)
}

// Union returns the addresses of all ranges, in as few runs as have them.
func Union(all []Range) Ranges {
	all = slices.SortedFunc(slices.Values(all), Range.Compare)
	var merged Ranges
	for _, s := range all {
		if n := len(merged); n > 0 && merged[n-1].touches(s) {
			if merged[n-1].Last.Less(s.Last) {
				merged[n-1].Last = s.Last
			}
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// touches reports whether o, which does not begin before r, leaves no gap.
func (r Range) touches(o Range) bool {
	next := r.Last.Next()
	return !next.IsValid() || o.First.Compare(next) <= 0
}

// differ returns what only one of two lists has. Lists that are the same array are
// not looked at.
func (r Ranges) differ(want Ranges) (extra, missing Ranges) {
	if len(r) == len(want) && (len(r) == 0 || &r[0] == &want[0]) {
		return nil, nil
	}
	have := r
	for len(have) > 0 && len(want) > 0 {
		switch c := have[0].Compare(want[0]); {
		case c == 0:
			have, want = have[1:], want[1:]
		case c < 0:
			extra, have = append(extra, have[0]), have[1:]
		default:
			missing, want = append(missing, want[0]), want[1:]
		}
	}
	return append(extra, have...), append(missing, want...)
}

// String joins at most a few, for people to read.
func (r Ranges) String() string {
	const most = 5
	var words []string
	for _, s := range r[:min(len(r), most)] {
		words = append(words, s.String())
	}
	if len(r) > most {
		words = append(words, "…")
	}
	return strings.Join(words, ", ")
}
