// Package netlab makes nodes and pods out of network namespaces: every node is
// a namespace of its own, nodes share segments (a bridge in a namespace that
// holds nothing else), routers join segments, and pods are empty namespaces
// that a CNI plugin can be pointed at.
//
//	lab := netlab.Start(t)
//	lan := lab.Segment("lan")
//	a := lab.Node("a", lan.Port("172.30.0.1/24", "fd00:30::1/64"))
//	b := lab.Node("b", lan.Port("172.30.0.2/24", "fd00:30::2/64"))
//	pod := lab.Pod("web")
//
// A Lab removes everything that it made when the test, or Close, ends it.
package netlab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// labs numbers the labs of a process, so that tests may run in parallel.
var labs atomic.Int64

// Lab is a set of namespaces that live and end together.
type Lab struct {
	prefix string
	fail   func(error)
	mu     sync.Mutex
	made   []*Namespace
	last   []func() error // what Close does first, in reverse order
}

// New makes an empty lab. A method that cannot do its work panics; a test
// uses [Start] instead.
func New() *Lab {
	return &Lab{
		prefix: fmt.Sprintf("lab%d-%d-", os.Getpid(), labs.Add(1)),
		fail:   func(err error) { panic(err) },
	}
}

// Start makes a lab for one test, which ends with the test and fails it where
// something cannot be made.
func Start(t testing.TB) *Lab {
	t.Helper()
	lab := New()
	lab.fail = func(err error) {
		t.Helper()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("closing lab: %v", err)
		}
	})
	return lab
}

// Fail says that something could not be made, as the lab's own methods do: it
// fails the test that the lab was made for, or panics where there is none.
func (l *Lab) Fail(err error) { l.fail(err) }

// OnClose has Close call f before it removes the namespaces: what was made last
// is undone first.
func (l *Lab) OnClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last, f)
}

// Close removes every namespace of the lab.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(l.last) {
		errs = append(errs, f())
	}
	l.last = nil
	for i := len(l.made) - 1; i >= 0; i-- {
		// A test may have removed a pod's namespace itself.
		if err := l.made[i].Delete(); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	l.made = nil
	return errors.Join(errs...)
}

// Namespace makes a namespace that is nothing in particular.
func (l *Lab) Namespace(name string) *Namespace {
	n, err := NewNamespace(l.prefix + name)
	if err != nil {
		l.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made = append(l.made, n)
	return n
}

// Pod makes an empty namespace for a CNI plugin to attach.
func (l *Lab) Pod(name string) *Namespace { return l.Namespace("pod-" + name) }

// Segment is one layer 2 network: a bridge alone in a namespace.
type Segment struct {
	lab   *Lab
	space *Namespace
	ports atomic.Int64
	mtu   int
}

// Segment makes an underlay network with an MTU of 1500 bytes.
func (l *Lab) Segment(name string) *Segment { return l.SegmentMTU(name, 1500) }

// SegmentMTU makes an underlay network whose ports have the given MTU in bytes.
func (l *Lab) SegmentMTU(name string, mtu int) *Segment {
	s := &Segment{lab: l, space: l.Namespace("net-" + name), mtu: mtu}
	// Without a querier, snooping would keep neighbour solicitations from new
	// ports for seconds.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br", MTU: mtu}, MulticastSnooping: &snooping}
	if err := s.space.Netlink().LinkAdd(bridge); err != nil {
		l.fail(fmt.Errorf("making bridge of segment %s: %w", name, err))
	}
	if err := s.space.Up("br"); err != nil {
		l.fail(err)
	}
	return s
}

// Space returns the namespace of the segment's bridge "br", for a capture.
func (s *Segment) Space() *Namespace { return s.space }

// Port is a place on a segment, with the addresses that its owner has there.
type Port struct {
	segment   *Segment
	addresses []netip.Prefix
}

// Port describes a place on the segment with these addresses and lengths.
func (s *Segment) Port(addresses ...string) Port {
	p := Port{segment: s}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			s.lab.fail(fmt.Errorf("port of segment %s: %w", s.space.Name, err))
		}
		p.addresses = append(p.addresses, prefix)
	}
	return p
}

// Addresses are those that the port's owner has there, with the segment's length.
func (p Port) Addresses() []netip.Prefix { return p.addresses }

// Node is a machine: a namespace with an interface eth0, eth1, … on each port.
type Node struct {
	*Namespace
	lab *Lab
}

// Node makes a machine that is connected to the given ports.
func (l *Lab) Node(name string, ports ...Port) *Node {
	n := &Node{Namespace: l.Namespace(name), lab: l}
	// Nothing in a lab has to wait for duplicate address detection of the
	// link-local addresses, from which neighbours are solicited. A kernel without IPv6
	// has none.
	if err := n.SetSysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.fail(err)
	}
	for i, port := range ports {
		if err := n.connect(fmt.Sprintf("eth%d", i), port); err != nil {
			l.fail(fmt.Errorf("connecting node %s: %w", name, err))
		}
	}
	return n
}

// Router makes a node that forwards between its ports and knows nothing else.
func (l *Lab) Router(name string, ports ...Port) *Node {
	n := l.Node(name, ports...)
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := n.SetSysctl(key, "1"); err != nil {
			l.fail(fmt.Errorf("making %s a router: %w", name, err))
		}
	}
	return n
}

func (n *Node) connect(link string, port Port) error {
	number := port.segment.ports.Add(1)
	// A MAC that is known from the start keeps the lab's runs alike.
	mac := net.HardwareAddr{0x02, 0x70, 0, 0, byte(number >> 8), byte(number)}
	bridge, err := port.segment.space.Netlink().LinkByName("br")
	if err != nil {
		return fmt.Errorf("finding bridge: %w", err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = fmt.Sprintf("port%d", number)
	attributes.MTU = port.segment.mtu
	attributes.MasterIndex = bridge.Attrs().Index
	pair := &netlink.Veth{
		LinkAttrs: attributes, PeerName: link, PeerHardwareAddr: mac,
		PeerNamespace: netlink.NsFd(n.FD()),
	}
	if err := port.segment.space.Netlink().LinkAdd(pair); err != nil {
		return fmt.Errorf("making %s: %w", link, err)
	}
	if err := port.segment.space.Up(attributes.Name); err != nil {
		return err
	}
	if err := n.Up(link); err != nil {
		return err
	}
	// The end that came up first transmits only once the kernel has got round
	// to it.
	if err := port.segment.space.awaitLink(attributes.Name); err != nil {
		return err
	}
	if err := n.awaitLink(link); err != nil {
		return err
	}
	for _, prefix := range port.addresses {
		if err := n.AddAddress(link, prefix.String()); err != nil {
			return err
		}
	}
	return nil
}

// AddAddress gives an interface an address, without duplicate address detection.
// Equivalent to: `ip -n NODE addr add PREFIX dev LINK nodad`.
func (n *Namespace) AddAddress(link, prefix string) error {
	l, err := n.Netlink().LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding %s in namespace %s: %w", link, n.Name, err)
	}
	address, err := netlink.ParseAddr(prefix)
	if err != nil {
		return fmt.Errorf("parsing address %s: %w", prefix, err)
	}
	if address.IP.To4() == nil {
		address.Flags = 0x02 // IFA_F_NODAD
	}
	if err := n.Netlink().AddrAdd(l, address); err != nil {
		return fmt.Errorf("adding %s to %s in namespace %s: %w", prefix, link, n.Name, err)
	}
	// The kernel makes the local route of an IPv6 address in the background.
	return n.await(fmt.Sprintf("address %s of %s", prefix, link), func() bool {
		routes, err := n.Netlink().RouteGet(address.IP)
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	})
}

// awaitLink waits until an interface transmits.
func (n *Namespace) awaitLink(name string) error {
	return n.await("interface "+name, func() bool {
		l, err := n.Netlink().LinkByName(name)
		return err == nil && l.Attrs().OperState == netlink.OperUp
	})
}

// await asks until the answer is yes.
func (n *Namespace) await(what string, ready func() bool) error {
	_, err := pace.Await(pace.Far(), func() error {
		if !ready() {
			return fmt.Errorf("%s in namespace %s is not ready", what, n.Name)
		}
		return nil
	})
	return err
}

// AddRoute adds a route by next hop. "default" stands for everything of the
// next hop's family. Equivalent to: `ip -n NODE route add DST via GATEWAY`.
func (n *Namespace) AddRoute(destination, gateway string) error {
	hop, err := netip.ParseAddr(gateway)
	if err != nil {
		return fmt.Errorf("parsing next hop %s: %w", gateway, err)
	}
	route := &netlink.Route{Gw: hop.AsSlice()}
	if destination != "default" {
		prefix, err := netip.ParsePrefix(destination)
		if err != nil {
			return fmt.Errorf("parsing destination %s: %w", destination, err)
		}
		route.Dst = &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	}
	if err := n.Netlink().RouteAdd(route); err != nil {
		return fmt.Errorf("adding route %s via %s in namespace %s: %w", destination, gateway, n.Name, err)
	}
	return nil
}
