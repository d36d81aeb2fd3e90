package ports

import (
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// entry is an element of one of the sets.
type entry struct {
	set     nft.Set
	element nft.Element
	mapping Mapping // that it is there for
	in      family
}

// isMapping reports whether the entry leads to a pod; the others are about sources.
func (e entry) isMapping() bool { return e.element.Value != "" }

// commentBytes bounds a comment: nft takes 128 bytes with the zero at its end.
const commentBytes = 127

// entries are all elements that a pod's ports come to.
func (p Pod) entries() (all []entry) {
	for _, f := range families {
		address, has := p.address(bool(f))
		if !has {
			continue
		}
		turned := false
		for _, m := range p.Mappings {
			if !m.in(bool(f)) {
				continue
			}
			number := protocols[m.Protocol]
			leads := nft.Key(nil).Address(address)
			e := entry{set: f.any(), mapping: m, in: f}
			key := nft.Key(nil)
			if !m.allOf(bool(f)) {
				e.set, key = f.one(), key.Address(m.HostIP)
			}
			e.element = nft.Element{
				Key: string(key.Protocol(number).Port(m.HostPort)), Value: string(leads.Port(m.ContainerPort)),
				Comment: p.Name[:min(len(p.Name), commentBytes)],
			}
			all = append(all, e)
			if p.MasqueradeAll {
				all = append(all, entry{set: f.masked(), mapping: m, in: f, element: nft.Element{
					Key: string(nft.Key(nil).Address(address).Protocol(number).Port(m.ContainerPort)),
				}})
			}
			turned = true
		}
		if !turned || p.KeepSource {
			continue
		}
		sources := []netip.Addr{address}
		if f == ipv4 {
			sources = append(sources, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		}
		for _, s := range sources {
			all = append(all, entry{set: f.turned(), in: f, element: nft.Element{Key: string(nft.Key(nil).Address(s).Address(address))}})
		}
	}
	return all
}

// Taken is a port of the node that leads to a pod.
type Taken struct {
	Mapping
	Leads netip.AddrPort
	Pod   string // as the element's comment has it
}

// taken reads an element of one of the family's two maps.
func (f family) taken(from nft.Set, e nft.Element) Taken {
	key, value := nft.Fields(e.Key), nft.Fields(e.Value)
	t := Taken{Pod: e.Comment}
	if from.Name == f.one().Name {
		t.HostIP = key.Address(f.length())
	} else if t.HostIP = netip.IPv6Unspecified(); f == ipv4 {
		t.HostIP = netip.IPv4Unspecified()
	}
	number := key.Protocol()
	for name, n := range protocols {
		if n == number {
			t.Protocol = name
		}
	}
	t.HostPort = key.Port()
	address := value.Address(f.length())
	t.Leads = netip.AddrPortFrom(address, value.Port())
	t.ContainerPort = t.Leads.Port()
	return t
}

// in returns the elements of a set among entries.
func in(set nft.Set, all []entry) func(yield func(nft.Element) bool) {
	return func(yield func(nft.Element) bool) {
		for _, e := range all {
			if e.set.Name == set.Name && !yield(e.element) {
				return
			}
		}
	}
}
