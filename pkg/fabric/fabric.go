// Package fabric joins a node to the other nodes: routes over the underlay, or
// a VXLAN overlay, so that pods of all nodes reach each other without
// translation.
//
// What has to be in the kernel is computed from the list of nodes and the
// node's own interfaces by a [Planner], which is a pure function with a memory
// for what has not changed. An [Engine] compares the plan with the kernel and
// applies the difference. For each peer and address family:
//
//	direct  ip route add PODCIDR via PEER dev eth0 proto 70 src SELF
//	bgp     ip route add PODCIDR via ROUTER dev eth0 proto 70 src SELF
//	vxlan   ip neigh add VTEP lladdr MAC dev flatnet.vx nud permanent
//	        bridge fdb add MAC dev flatnet.vx dst PEER self permanent
//	        ip route add PODCIDR via VTEP dev flatnet.vx proto 70 onlink
//	        ip route add PEER via VTEP dev flatnet.vx table 70 proto 70 onlink
//
// VTEP is the first address of the peer's podCIDR (for IPv6 a link-local one),
// and MAC a function of its name, so nothing has to be announced, learned or
// waited for. Table 70 is
// asked for what comes from pods only (ip rule add from OWN-PODCIDR lookup 70):
// a pod reaches other nodes' own addresses through the overlay too, because a
// network that needs one drops packets with pods' addresses. For the same
// reason what the node itself sends to remote pods comes from its VTEP address.
//
// An unreachable route to the node's own podCIDR answers for addresses without
// a pod. Without it such packets would go out by the default route, and come back.
package fabric

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Mode says how peers are reached.
type Mode string

const (
	Auto   Mode = "auto"   // direct where the peer is on link, vxlan where it is not
	Direct Mode = "direct" // over the underlay, which has to know the routes where a peer is not on link
	VXLAN  Mode = "vxlan"  // through the overlay
	None   Mode = "none"   // somebody else makes the routes

	// BGP is no mode that a user chooses: so are peers reached, in modes auto and direct,
	// whose podCIDRs routers have told of, though the peers are not on link.
	BGP Mode = "bgp"
)

// ParseMode reads a mode, as a user writes it.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case Auto, Direct, VXLAN, None:
		return m, nil
	}
	return "", fmt.Errorf("fabric %q is not one of auto, direct, vxlan, none", text)
}

// Config is what the user decides.
type Config struct {
	Mode Mode
	// Tunnel is the name of the VXLAN device.
	Tunnel string
	VNI    int // VXLAN network identifier, 1 to 16777215
	Port   int // UDP port of the overlay, 1 to 65535
	// Nodes has pods reach other nodes' own addresses through the overlay too,
	// where their pods are reached through it. It takes a routing rule, and
	// with one the kernel takes the slow way through its tables for every
	// packet; so where the underlay lets packets with pods' addresses pass, it
	// is better without.
	Nodes bool
	// Answer has the node answer probes of others at an address of each podCIDR.
	Answer bool
	// MTU of pods in bytes; 0 means that of the underlay, less what the
	// overlay takes where it is in use.
	MTU int
	// WithoutOverlay is why there can be no VXLAN device; "" where there can.
	WithoutOverlay string
}

// Overhead returns what VXLAN takes of a packet on an underlay of the address's
// family, in bytes: the outer IP and UDP headers, VXLAN's, and the inner
// Ethernet header.
func Overhead(underlay netip.Addr) int {
	if underlay.Is4() {
		return 50
	}
	return 70
}

// MAC returns the hardware address of a node's end of the overlay. It is a
// function of the node's name alone: locally administered, unicast.
func MAC(node string) kernel.MAC {
	sum := sha256.Sum256([]byte("flatnet vtep " + node))
	mac := kernel.MAC(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// Entry is an object that has to be there. Its object is a comparable value.
type Entry struct {
	Place  string // see [kernel.Place]
	Object kernel.Object
}

func entry(o kernel.Object) Entry {
	return Entry{kernel.Place(o), o}
}

// Way is how the pods of one podCIDR of a peer are reached.
type Way struct {
	PodCIDR netip.Prefix
	Mode    Mode       // Direct, BGP or VXLAN; "" where there is no way
	Via     netip.Addr // next hop of Direct, other end of VXLAN; of BGP the first next hop
	Link    string
	Hops    kernel.Hops // of BGP, all of them
}

// Peer is the part of a plan that joins one peer.
type Peer struct {
	Name     string
	Ways     []Way
	Problems []problem.Problem
	Entries  []Entry
}

// Plan is what a node's fabric consists of.
type Plan struct {
	Shared []Entry // what does not belong to one peer
	// Peers are the others, by name. One that has not changed is the same
	// value as in the plan before.
	Peers    []*Peer
	Problems []problem.Problem
	// OwnPodCIDRs are those that pods of this node may get addresses of.
	OwnPodCIDRs []netip.Prefix
	// PodMTU is the MTU of pods, in bytes.
	PodMTU int
	// Tunnel is the VXLAN device's name, or "" where the plan has none.
	Tunnel string
	// Outer is this node's address in the packets of the overlay; zero where no peer is
	// reached through it.
	Outer netip.Addr
	// Underlay are the interfaces that the fabric's packets take.
	Underlay []string
}

// Entries returns all entries by their place. No two claim the same place: the
// judging of nodes has seen to that.
func (p *Plan) Entries() map[string]Entry {
	n := len(p.Shared)
	for _, peer := range p.Peers {
		n += len(peer.Entries)
	}
	all := make(map[string]Entry, n)
	add := func(entries []Entry) {
		for _, e := range entries {
			all[e.Place] = e
		}
	}
	add(p.Shared)
	for _, peer := range p.Peers {
		add(peer.Entries)
	}
	return all
}

// String shows the plan as `ip` commands, an entry a line.
func (p *Plan) String() string {
	var b strings.Builder
	for _, e := range p.Shared {
		fmt.Fprintln(&b, e.Object)
	}
	for _, peer := range p.Peers {
		fmt.Fprintf(&b, "# %s\n", peer.Name)
		for _, e := range peer.Entries {
			fmt.Fprintln(&b, e.Object)
		}
		for _, p := range peer.Problems {
			fmt.Fprintf(&b, "# problem: %s\n", p)
		}
	}
	for _, p := range p.Problems {
		fmt.Fprintf(&b, "# problem: %s\n", p)
	}
	return b.String()
}
