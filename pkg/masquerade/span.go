package masquerade

import (
	"net/netip"
	"slices"
	"strings"
)

// span is a run of addresses of one family, both ends included. What is wanted
// are prefixes and single addresses; what is found may be any run.
type span struct{ first, last netip.Addr }

// String is how nft writes a run: an address, a prefix or a range.
func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	for bits := s.first.BitLen() - 1; bits >= 0; bits-- {
		if p := netip.PrefixFrom(s.first, bits); lastOf(p) == s.last && p.Masked().Addr() == s.first {
			return p.String()
		}
	}
	return s.first.String() + "-" + s.last.String()
}

func (s span) compare(o span) int {
	if c := s.first.Compare(o.first); c != 0 {
		return c
	}
	return s.last.Compare(o.last)
}

// spansOf returns the prefixes of one family in order, without those that lie
// in another one.
func spansOf(prefixes []netip.Prefix, is6 bool) []span {
	return new(arranged[netip.Prefix]).arrange(prefixes, prefixSpan)[familyOf(is6)]
}

// prefixSpan returns the addresses of a prefix, host bits or not.
func prefixSpan(p netip.Prefix) (span, bool) {
	p = unmap(p)
	if !p.IsValid() {
		return span{}, false
	}
	return span{p.Masked().Addr(), lastOf(p)}, true
}

// addressSpan returns a single address.
func addressSpan(a netip.Addr) (span, bool) {
	a = a.Unmap().WithZone("")
	return span{a, a}, a.IsValid()
}

// sort leaves alone what is in order, which what a caller sorted before is.
func sort(all []span, compare func(a, b span) int) {
	if !slices.IsSortedFunc(all, compare) {
		slices.SortFunc(all, compare)
	}
}

// difference returns what only one of two ordered lists has.
func difference(have, want []span) (extra, missing []span) {
	if same(have, want) {
		return nil, nil
	}
	for len(have) > 0 && len(want) > 0 {
		switch c := have[0].compare(want[0]); {
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

// unmap makes an IPv4 prefix of one that is written as IPv6 (::ffff:10.0.0.0/104).
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
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

// list joins at most a few spans, for people to read.
func list(all []span) string {
	const most = 5
	var words []string
	for _, s := range all[:min(len(all), most)] {
		words = append(words, s.String())
	}
	if len(all) > most {
		words = append(words, "…")
	}
	return strings.Join(words, ", ")
}
