// Package kernel is the edge to Linux: the objects that a pod's attachment
// consists of, as plain values, and what makes, compares and removes them.
//
// Two things stand behind the same three methods (Make, Inspect, Remove):
// [Netlink], which is the kernel, and [Recorder], which is a list of the
// equivalent `ip` commands.
package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Protocol is the route protocol number of everything that flatnet puts into a
// routing or neighbour table: `ip route show proto 70`.
const Protocol = 70

// Group is the interface group of flatnet's host interfaces:
// `ip link show group 70`.
const Group = 70

// Side says in which of an attachment's two network namespaces an object is.
type Side int

const (
	Host Side = iota // the node's namespace, where the plugin runs
	Pod              // the namespace that CNI_NETNS names
)

// ip is the beginning of an `ip` command for the side.
func (s Side) ip() string {
	if s == Pod {
		return "ip -n pod"
	}
	return "ip"
}

func (s Side) String() string {
	if s == Pod {
		return "pod"
	}
	return "host"
}

// Object is one thing in the kernel. Its text is the `ip` command (or sysctl)
// that makes it.
type Object interface {
	fmt.Stringer
	// Dependence returns the interface without which the object cannot
	// exist: the kernel removes the object together with it. It returns ""
	// where the object stands alone.
	Dependence() (Side, string)
}

// Pair is a veth pair, one end in each namespace, both born there with name,
// MAC address, MTU and group in one message. A device that is moved or gets
// its MAC later costs an RCU grace period, and udev may change the MAC of one
// that was created without (MACAddressPolicy=persistent).
type Pair struct {
	Host, Pod End
	MTU       int // bytes
}

// End is one end of a [Pair].
type End struct {
	Name string `json:"name"`
	MAC  MAC    `json:"mac"`
}

// MAC is a hardware address whose JSON form is its usual text.
type MAC net.HardwareAddr

func (m MAC) String() string { return net.HardwareAddr(m).String() }

// MarshalText returns the form with colons.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads any form that [net.ParseMAC] reads, and "" as none.
func (m *MAC) UnmarshalText(text []byte) error {
	*m = nil
	if len(text) == 0 {
		return nil
	}
	parsed, err := net.ParseMAC(string(text))
	*m = MAC(parsed)
	return err
}

func (p Pair) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d group %d type veth peer name %s address %s mtu %d netns pod",
		p.Host.Name, p.Host.MAC, p.MTU, Group, p.Pod.Name, p.Pod.MAC, p.MTU)
}

// Dependence implements [Object]: a pair stands alone.
func (Pair) Dependence() (Side, string) { return Host, "" }

// Settings are an interface's properties that cannot be given in the message
// that creates it. All of them travel in one message.
type Settings struct {
	Side Side
	Link string
	// Alias is a text of at most 255 bytes.
	Alias string
	// Guarded makes the interface forward IPv4 and drop what comes from a
	// source address that is not routed to it (strict reverse path filter).
	Guarded bool
	// WithoutIPv6 keeps the interface out of IPv6: no addresses, no multicast
	// route, which the kernel keeps in one long list for all interfaces.
	WithoutIPv6 bool
	// Announcing makes the interface tell its neighbours when its MAC address
	// changes, in IPv4 and, where IPv6 is set, in IPv6 as well.
	Announcing, IPv6 bool
}

func (s Settings) String() string {
	text := fmt.Sprintf("%s link set %s addrgenmode none", s.Side.ip(), s.Link)
	if s.Alias != "" {
		text += fmt.Sprintf(" alias %q", s.Alias)
	}
	if s.Guarded {
		text += fmt.Sprintf("; sysctl net.ipv4.conf.%s.forwarding=1 net.ipv4.conf.%s.rp_filter=1", s.Link, s.Link)
	}
	if s.WithoutIPv6 {
		text += fmt.Sprintf("; sysctl net.ipv6.conf.%s.disable_ipv6=1", s.Link)
	}
	if s.Announcing {
		text += fmt.Sprintf("; sysctl net.ipv4.conf.%s.arp_notify=1", s.Link)
		if s.IPv6 {
			text += fmt.Sprintf(" net.ipv6.conf.%s.ndisc_notify=1", s.Link)
		}
	}
	return text
}

// Dependence implements [Object].
func (s Settings) Dependence() (Side, string) { return s.Side, s.Link }

// Up is an interface's administrative state.
type Up struct {
	Side Side
	Link string
}

func (u Up) String() string { return fmt.Sprintf("%s link set %s up", u.Side.ip(), u.Link) }

// Dependence implements [Object].
func (u Up) Dependence() (Side, string) { return u.Side, u.Link }

// Running is an interface that transmits. Bringing up the second end of a pair
// switches the first one's queue on, but in the background: until then the
// kernel drops what is sent through it. To make it is to wait for that.
type Running struct {
	Side Side
	Link string
}

func (r Running) String() string {
	return fmt.Sprintf("%s link show %s (until its state is UP)", r.Side.ip(), r.Link)
}

// Dependence implements [Object].
func (r Running) Dependence() (Side, string) { return r.Side, r.Link }

// Address is an address of an interface, without duplicate address detection. A
// link-local one that is longer than its address brings a route to its prefix.
type Address struct {
	Side   Side
	Link   string
	Prefix netip.Prefix
	// Deprecated keeps an IPv6 address from being chosen as a source (RFC
	// 6724, 5, rule 3), other than by a route that names it.
	Deprecated bool
}

func (a Address) String() string {
	text := fmt.Sprintf("%s addr add %s dev %s", a.Side.ip(), a.Prefix, a.Link)
	if flags := a.flags(); flags&unix.IFA_F_NODAD != 0 {
		text += " nodad"
		if flags&unix.IFA_F_NOPREFIXROUTE != 0 {
			text += " noprefixroute"
		}
	}
	if a.Deprecated {
		text += " preferred_lft 0"
	}
	return text
}

func (a Address) flags() uint32 {
	switch address := a.Prefix.Addr(); {
	case address.Is4():
		return 0
	case address.IsLinkLocalUnicast() && !a.Prefix.IsSingleIP():
		return unix.IFA_F_NODAD
	}
	return unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
}

// Dependence implements [Object].
func (a Address) Dependence() (Side, string) { return a.Side, a.Link }

// Reachable is an IPv6 address that packets to it are delivered to. The kernel
// makes an address's local route in the background, even where it skips duplicate
// address detection, and on a crowded machine seconds later; until then it takes
// packets to the address for somebody else's. So it gets a local route at once,
// which stays beside the kernel's own (of metric 0) and ends with the interface.
type Reachable struct {
	Side    Side
	Link    string
	Address netip.Addr
}

func (r Reachable) String() string {
	return fmt.Sprintf("%s route add local %s dev %s proto %d table local", r.Side.ip(), r.Address, r.Link, Protocol)
}

// Dependence implements [Object].
func (r Reachable) Dependence() (Side, string) { return r.Side, r.Link }

// Neighbour is an entry of the neighbour table that is valid from the start, so
// that nothing has to be resolved, and exempt from garbage collection.
type Neighbour struct {
	Side    Side
	Link    string
	Address netip.Addr
	MAC     MAC
	// Amendable lets the neighbour itself announce another MAC address. Any
	// other entry is permanent: nothing but an administrator changes it.
	Amendable bool
}

func (n Neighbour) String() string {
	state := "permanent"
	if n.Amendable {
		state = "reachable extern_learn"
	}
	return fmt.Sprintf("%s neigh add %s lladdr %s dev %s nud %s proto %d", n.Side.ip(), n.Address, n.MAC, n.Link, state, Protocol)
}

// Dependence implements [Object].
func (n Neighbour) Dependence() (Side, string) { return n.Side, n.Link }

// Patience is how long an interface's neighbours of one family are taken to be
// reachable without being asked: ten days instead of half a minute.
type Patience struct {
	Side Side
	Link string
	IPv6 bool
}

// patienceMilliseconds is well below 2^31 kernel ticks, and so is half as much
// again, which the kernel may add at random.
const patienceMilliseconds = 10 * 24 * 60 * 60 * 1000

func (p Patience) table() string {
	if p.IPv6 {
		return "ndisc_cache"
	}
	return "arp_cache"
}

func (p Patience) String() string {
	return fmt.Sprintf("%s ntable change name %s dev %s base_reachable %d", p.Side.ip(), p.table(), p.Link, patienceMilliseconds)
}

// Dependence implements [Object].
func (p Patience) Dependence() (Side, string) { return p.Side, p.Link }

// Route is a route through an interface.
type Route struct {
	Side        Side
	Link        string
	Destination netip.Prefix
	// Gateway is the next hop, taken to be on the link; zero where there is none.
	Gateway netip.Addr
	// Scope is a routing scope, 0 (universe) to 255 (nowhere); nil means
	// universe with a gateway, link without.
	Scope    *int
	Table    int // 0 means main
	Priority int // metric; 0 means the family's default
	MTU      int // bytes; 0 means that of the interface
	AdvMSS   int // bytes; 0 means from the MTU
}

func (r Route) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s route add %s", r.Side.ip(), destinationText(r.Destination))
	if r.Gateway.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Gateway)
	}
	fmt.Fprintf(&b, " dev %s proto %d", r.Link, Protocol)
	if r.Gateway.IsValid() {
		b.WriteString(" onlink")
	}
	for _, option := range []struct {
		name  string
		value int
	}{{"table", r.Table}, {"metric", r.Priority}, {"mtu", r.MTU}, {"advmss", r.AdvMSS}} {
		if option.value != 0 {
			fmt.Fprintf(&b, " %s %d", option.name, option.value)
		}
	}
	if r.Scope != nil {
		fmt.Fprintf(&b, " scope %d", *r.Scope)
	}
	return b.String()
}

// Dependence implements [Object].
func (r Route) Dependence() (Side, string) { return r.Side, r.Link }

func destinationText(p netip.Prefix) string {
	switch {
	case p.Bits() == 0 && p.Addr().Is4():
		return "default"
	case p.Bits() == 0:
		return "-6 default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// Answered is an address outside of all interfaces that the node answers to. All
// attachments with the same gateway share it, so Remove leaves it alone; see
// [Netlink.RemoveAnswered].
type Answered struct {
	Address netip.Addr
}

func (a Answered) String() string {
	return fmt.Sprintf("ip route add local %s dev lo proto %d table local", a.Address, Protocol)
}

// Dependence implements [Object]: an answered address stands alone.
func (Answered) Dependence() (Side, string) { return Host, "" }

// Forwarding is the machine-wide switch that makes a node forward packets of
// one address family. It belongs to the node, so Remove leaves it alone.
type Forwarding struct {
	IPv6 bool
}

// Key is the name of the switch below /proc/sys.
func (f Forwarding) Key() string {
	if f.IPv6 {
		return "net/ipv6/conf/all/forwarding"
	}
	return "net/ipv4/ip_forward"
}

func (f Forwarding) String() string {
	return "sysctl -w " + strings.ReplaceAll(f.Key(), "/", ".") + "=1"
}

// Dependence implements [Object]: forwarding stands alone.
func (Forwarding) Dependence() (Side, string) { return Host, "" }
