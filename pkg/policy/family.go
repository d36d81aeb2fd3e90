package policy

import (
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// family is one of addresses.
type family uint8

const (
	ipv4 family = iota
	ipv6
)

var families = [...]family{ipv4, ipv6}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// header is what nft calls the family's.
func (f family) header() string { return [...]string{"ip", "ip6"}[f] }

func (f family) suffix() string { return [...]string{"4", "6"}[f] }

func (f family) addressType() string { return [...]string{"type ipv4_addr", "type ipv6_addr"}[f] }

// ranges are the addresses of blocks in the family.
func (f family) ranges(blocks []Block) nft.Ranges {
	var all []nft.Range
	for _, b := range blocks {
		if familyOf(b.CIDR.Addr()) != f {
			continue
		}
		left := []nft.Range{nft.RangeOf(b.CIDR)}
		for _, e := range b.Except {
			if familyOf(e.Addr()) == f {
				left = without(left, nft.RangeOf(e))
			}
		}
		all = append(all, left...)
	}
	return nft.Union(all)
}

// without takes a range out of ranges.
func without(ranges []nft.Range, out nft.Range) (left []nft.Range) {
	for _, r := range ranges {
		if out.Last.Less(r.First) || r.Last.Less(out.First) {
			left = append(left, r)
			continue
		}
		if r.First.Less(out.First) {
			left = append(left, nft.Range{First: r.First, Last: out.First.Prev()})
		}
		if out.Last.Less(r.Last) {
			left = append(left, nft.Range{First: out.Last.Next(), Last: r.Last})
		}
	}
	return left
}
