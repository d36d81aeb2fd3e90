package kernel

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Hop is one of several next hops of a route.
type Hop struct {
	Gateway netip.Addr
	Link    string
}

// Hops are several next hops in one order, as a text: routes are compared with ==.
type Hops string

// HopsOf returns next hops as a value to compare.
func HopsOf(hops []Hop) Hops {
	texts := make([]string, 0, len(hops))
	for _, h := range hops {
		texts = append(texts, h.Gateway.String()+" "+h.Link)
	}
	slices.Sort(texts)
	return Hops(strings.Join(slices.Compact(texts), ","))
}

// All returns the next hops.
func (h Hops) All() []Hop {
	if h == "" {
		return nil
	}
	var all []Hop
	for text := range strings.SplitSeq(string(h), ",") {
		gateway, link, _ := strings.Cut(text, " ")
		a, err := netip.ParseAddr(gateway)
		if err != nil {
			continue // HopsOf writes none of these
		}
		all = append(all, Hop{a, link})
	}
	return all
}

// attribute is the content of RTA_MULTIPATH: for each a struct rtnexthop, and its gateway.
func (h Hops) attribute(destination netip.Addr, links []int) (raw []byte) {
	for i, hop := range h.All() {
		via := gatewayAttribute(destination, hop.Gateway).Serialize()
		head := make([]byte, unix.SizeofRtNexthop)
		nl.NativeEndian().PutUint16(head, uint16(len(head)+len(via)))
		nl.NativeEndian().PutUint32(head[4:], uint32(links[i]))
		raw = append(append(raw, head...), via...)
	}
	return raw
}

// foundHop is a next hop in a message of the kernel.
type foundHop struct {
	link    int
	gateway netip.Addr
}

// readHops reads several next hops. One alone is no different from a gateway.
func (f *foundRoute) readHops(raw []byte) {
	var hops []foundHop
	for len(raw) >= unix.SizeofRtNexthop {
		length := int(nl.NativeEndian().Uint16(raw))
		if length < unix.SizeofRtNexthop || length > len(raw) {
			break
		}
		h := foundHop{link: int(nl.NativeEndian().Uint32(raw[4:]))}
		for kind, value := range netlink.Attributes(raw[unix.SizeofRtNexthop:length]) {
			switch {
			case kind == unix.RTA_GATEWAY:
				h.gateway, _ = netip.AddrFromSlice(value)
			case kind == unix.RTA_VIA && len(value) > 2:
				h.gateway, _ = netip.AddrFromSlice(value[2:])
			}
		}
		hops = append(hops, h)
		const alignment = 4 // RTNH_ALIGNTO
		raw = raw[min(len(raw), (length+alignment-1)&^(alignment-1)):]
	}
	if len(hops) > 0 {
		f.link, f.Gateway = hops[0].link, hops[0].gateway
	}
	if len(hops) > 1 {
		f.hops = hops
	}
}

// named are the next hops with the names of their interfaces; none where one has none.
func (f foundRoute) named(name func(link int) string) Hops {
	var hops []Hop
	for _, h := range f.hops {
		link := name(h.link)
		if link == "" {
			return ""
		}
		hops = append(hops, Hop{h.gateway, link})
	}
	return HopsOf(hops)
}
