package kernel

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// What joins a node to the other nodes, as values. All of it is on the host.

// FabricTable is the routing table with the ways to other nodes' own addresses
// that pods take through a tunnel: `ip route show table 70`.
const FabricTable = 70

// NodeRoute is a route of the node: to another node's pods or addresses, or to
// nowhere.
type NodeRoute struct {
	Destination netip.Prefix
	Table       int // 0 means main
	Metric      int // 0 means the family's default
	// Link is the interface; "" for an unreachable route.
	Link string
	// Gateway is the next hop; zero where the destination is on link.
	Gateway netip.Addr
	// OnLink takes the next hop to be reachable through the interface,
	// whatever its addresses say.
	OnLink bool
	// Source is what the node sends from; zero leaves it to the kernel.
	Source netip.Addr
	// Unreachable answers what takes the route with an ICMP error.
	Unreachable bool
	// Odd is the type (RTN_…) of a route that flatnet does not make, such as a
	// blackhole, and that somebody made with its mark; else 0.
	Odd uint8
}

func (r NodeRoute) String() string {
	b := make([]byte, 0, 128)
	b = append(b, "ip route add "...)
	if r.Unreachable {
		b = append(b, "unreachable "...)
	}
	if r.Odd != 0 {
		b = append(b, "type "...)
		b = strconv.AppendInt(b, int64(r.Odd), 10)
		b = append(b, ' ')
	}
	b = r.Destination.AppendTo(b)
	if r.Gateway.IsValid() {
		b = append(b, " via "...)
		b = r.Gateway.AppendTo(b)
	}
	if r.Link != "" {
		b = append(b, " dev "...)
		b = append(b, r.Link...)
	}
	if r.Table != 0 && r.Table != unix.RT_TABLE_MAIN {
		b = append(b, " table "...)
		b = strconv.AppendInt(b, int64(r.Table), 10)
	}
	b = append(b, " proto 70"...)
	if r.Source.IsValid() {
		b = append(b, " src "...)
		b = r.Source.AppendTo(b)
	}
	if r.Metric != 0 {
		b = append(b, " metric "...)
		b = strconv.AppendInt(b, int64(r.Metric), 10)
	}
	if r.OnLink {
		b = append(b, " onlink"...)
	}
	return string(b)
}

// Dependence implements [Object].
func (r NodeRoute) Dependence() (Side, string) { return Host, r.Link }

func (r NodeRoute) table() int {
	if r.Table != 0 {
		return r.Table
	}
	return unix.RT_TABLE_MAIN
}

// Tunnel is the VXLAN device: the overlay's interface on this node. It learns
// nothing: who is where stands in [Forward] entries.
type Tunnel struct {
	Name string
	VNI  int        // VXLAN network identifier, 1 to 16777215
	Port int        // UDP destination port, 1 to 65535
	From netip.Addr // the node's address on the underlay; its family is the tunnel's
	MAC  [6]byte
	MTU  int // bytes
}

func (t Tunnel) String() string {
	// The outer UDP checksum is left out over IPv4: the inner packets have
	// their own, and kernels before 5.8 and some network cards compute a wrong
	// one for packets that were translated. Over IPv6 it is required (RFC 6935
	// allows to leave it out, but then the other end has to agree).
	checksum := "noudpcsum"
	if t.From.Is6() {
		checksum = "udpcsum"
	}
	return fmt.Sprintf("ip link add %s address %s mtu %d type vxlan id %d local %s dstport %d nolearning %s; ip link set %s up addrgenmode none",
		t.Name, MAC(t.MAC[:]), t.MTU, t.VNI, t.From, t.Port, checksum, t.Name)
}

// Dependence implements [Object]: a tunnel stands alone.
func (Tunnel) Dependence() (Side, string) { return Host, "" }

// Forward is an entry of a tunnel's forwarding database: frames to a MAC address
// go to a node.
type Forward struct {
	Link string
	MAC  [6]byte
	To   netip.Addr
}

func (f Forward) String() string {
	b := make([]byte, 0, 96)
	b = append(b, "bridge fdb add "...)
	b = append(b, MAC(f.MAC[:]).String()...)
	b = append(b, " dev "...)
	b = append(b, f.Link...)
	b = append(b, " dst "...)
	b = f.To.AppendTo(b)
	b = append(b, " self permanent"...)
	return string(b)
}

// Dependence implements [Object].
func (f Forward) Dependence() (Side, string) { return Host, f.Link }

// TunnelNeighbour is a permanent entry of the tunnel's neighbour table.
type TunnelNeighbour struct {
	Link    string
	Address netip.Addr
	MAC     [6]byte
}

func (n TunnelNeighbour) String() string {
	b := make([]byte, 0, 96)
	b = append(b, "ip neigh add "...)
	b = n.Address.AppendTo(b)
	b = append(b, " lladdr "...)
	b = append(b, MAC(n.MAC[:]).String()...)
	b = append(b, " dev "...)
	b = append(b, n.Link...)
	b = append(b, " nud permanent proto 70"...)
	return string(b)
}

// Dependence implements [Object].
func (n TunnelNeighbour) Dependence() (Side, string) { return Host, n.Link }

// Rule sends what comes from a prefix to a routing table first. Where that has
// no answer the main table is asked as usual.
type Rule struct {
	From     netip.Prefix
	Table    int
	Priority int
}

func (r Rule) String() string {
	return fmt.Sprintf("ip rule add from %s lookup %d priority %d protocol %d", r.From, r.Table, r.Priority, Protocol)
}

// Dependence implements [Object].
func (Rule) Dependence() (Side, string) { return Host, "" }

// Place names what an object of the fabric takes up in the kernel: of two
// objects with the same place, only one can be there. It panics for kinds that
// are not the fabric's.
func Place(object Object) string {
	b := make([]byte, 0, 64)
	switch o := object.(type) {
	case NodeRoute:
		b = append(b, "route "...)
		b = o.Destination.AppendTo(b)
		b = append(b, " table "...)
		b = strconv.AppendInt(b, int64(o.table()), 10)
		b = append(b, " metric "...)
		b = strconv.AppendInt(b, int64(o.Metric), 10)
	case Tunnel:
		b = append(append(b, "link "...), o.Name...)
	case Address:
		b = o.Prefix.AppendTo(append(b, "address "...))
		b = append(append(b, ' '), o.Link...)
	case Forward:
		b = append(append(b, "forward "...), o.MAC[:]...)
		b = append(append(b, ' '), o.Link...)
	case TunnelNeighbour:
		b = o.Address.AppendTo(append(b, "neighbour "...))
		b = append(append(b, ' '), o.Link...)
	case Rule:
		b = o.From.AppendTo(append(b, "rule "...))
		b = append(b, " table "...)
		b = strconv.AppendInt(b, int64(o.Table), 10)
	default:
		panic(fmt.Sprintf("kernel: %T has no place in the fabric", object))
	}
	return string(b)
}
