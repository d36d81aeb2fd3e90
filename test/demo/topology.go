package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// The mark of everything that flatnet makes: the protocol number of its routes
// and the group of its interfaces.
const mark = 70

// families names the address families; arrays of two have this order.
var families = [2]string{"IPv4", "IPv6"}

const nodeCount = 3

// node is a machine of the cluster.
type node struct {
	*netlab.Node
	name      string
	addresses [2]netip.Addr
	subnets   [2]netip.Prefix // of its pods
	runtime   *containerRuntime
}

// makeNodes makes the machines and the segment that joins them.
func (d *demo) makeNodes() (err error) {
	defer recoverFailure(&err)
	segment := d.lab.Segment("underlay")
	for i := 1; i <= nodeCount; i++ {
		n := &node{
			name:      fmt.Sprintf("node%d", i),
			addresses: [2]netip.Addr{parseAddr("172.30.0.%d", i), parseAddr("fd00:30::%d", i)},
			subnets:   [2]netip.Prefix{parsePrefix("10.244.%d.0/24", i), parsePrefix("fd00:244:%d::/64", i)},
		}
		n.Node = d.lab.Node(n.name, segment.Port(n.addresses[0].String()+"/24", n.addresses[1].String()+"/64"))
		d.nodes = append(d.nodes, n)
	}
	d.heading("Nodes")
	d.text("A node is a network namespace with an interface on a segment that all nodes share.\n" +
		"Each has networks of its own for its pods, as Kubernetes gives them (podCIDRs).")
	rows := [][]string{{"node", "addresses", "", "pods", ""}}
	for _, n := range d.nodes {
		rows = append(rows, []string{
			n.name, n.addresses[0].String(), n.addresses[1].String(), n.subnets[0].String(), n.subnets[1].String(),
		})
	}
	d.table(rows)
	first := d.nodes[0]
	d.commands(
		"ip netns add node1",
		"ip link add port1 master br type veth peer name eth0 netns node1",
		"ip link set port1 up; ip -n node1 link set eth0 up",
		fmt.Sprintf("ip -n node1 addr add %s/24 dev eth0; ip -n node1 addr add %s/64 dev eth0", first.addresses[0], first.addresses[1]),
		"(the other nodes likewise)",
	)
	return nil
}

// recoverFailure makes an error of a lab's panic, which is what a lab without a
// test has to say that it could not make something.
func recoverFailure(err *error) {
	cause := recover()
	if cause == nil {
		return
	}
	var programming runtime.Error
	failure, ok := cause.(error)
	if !ok || errors.As(failure, &programming) {
		panic(cause)
	}
	*err = failure
}

// nodeRoute leads from a node to the pods of another one.
type nodeRoute struct {
	on          *node
	destination netip.Prefix
	via         netip.Addr
}

// nodeRoutes says what routes the nodes need.
func nodeRoutes(nodes []*node) []nodeRoute {
	var routes []nodeRoute
	for _, n := range nodes {
		for _, peer := range nodes {
			if peer == n {
				continue
			}
			for f := range families {
				routes = append(routes, nodeRoute{on: n, destination: peer.subnets[f], via: peer.addresses[f]})
			}
		}
	}
	return routes
}

func (r nodeRoute) String() string {
	return fmt.Sprintf("ip -n %s route add %s via %s proto %d", r.on.name, r.destination, r.via, mark)
}

func (r nodeRoute) netlink() *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: r.destination.Addr().AsSlice(), Mask: net.CIDRMask(r.destination.Bits(), r.destination.Addr().BitLen())},
		Gw:       r.via.AsSlice(),
		Protocol: mark,
	}
}

// connectNodes gives every node routes to the pods of the others.
func (d *demo) connectNodes() error {
	routes := nodeRoutes(d.nodes)
	var shown []string
	for _, r := range routes {
		if err := r.on.Netlink().RouteAdd(r.netlink()); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		if r.on == d.nodes[0] {
			shown = append(shown, r.String())
		}
	}
	d.heading("Routes between the nodes")
	d.text("Every node has a route to the pods of each other node. There is no tunnel and no NAT: a pod's\n" +
		"packets cross the segment as the pod has sent them.")
	d.commands(append(shown, fmt.Sprintf("(the other nodes likewise, %d routes in all)", len(routes)))...)
	return nil
}

// disconnectNodes removes what connectNodes has added.
func (d *demo) disconnectNodes() error {
	for _, n := range d.nodes {
		for _, r := range nodeRoutes(d.nodes) {
			if r.on != n {
				continue
			}
			if err := n.Netlink().RouteDel(r.netlink()); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("removing route to %s from %s: %w", r.destination, n.name, err)
			}
		}
	}
	return nil
}

// parseAddr and parsePrefix are for the plan's own texts.
func parseAddr(format string, number int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(format, number))
}

func parsePrefix(format string, number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, number))
}
