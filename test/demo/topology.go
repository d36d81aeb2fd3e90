package main

import (
	"slices"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// families names the address families; arrays of two have this order.
var families = [2]string{"IPv4", "IPv6"}

// The addresses of the router on each of its sides, and of the host outside.
var (
	routerLeft  = [2]string{"172.30.0.254", "fd00:30::254"}
	routerRight = [2]string{"172.30.1.254", "fd00:30:1::254"}
	routerOuter = [2]string{"198.51.100.254", "2001:db8::254"}
	outerHost   = [2]string{"198.51.100.7", "2001:db8::7"}
)

// drawing is what makeNodes makes.
const drawing = `                  outside   198.51.100.7
                     |      2001:db8::7
                     |
   +-------------- router ----------------+
   |      (knows nothing of pods)         |
   |                                      |
   +--- 172.30.0.0/24 ---+                +--- 172.30.1.0/24
   |    fd00:30::/64     |                |    fd00:30:1::/64
   |                     |                |
 node1                 node2            node3
 web-1 db-1            web-2 db-2       web-3 db-3   (the pods)`

// makeNodes makes the machines and the two subnets, which a router joins.
func (d *demo) makeNodes(binaries string) error {
	d.cluster = cluster.New(d.lab, binaries)
	d.cluster.Datapath = "auto" // as everywhere but in tests
	left, right, outer := d.lab.Segment("left"), d.lab.Segment("right"), d.lab.Segment("outer")
	port := func(s *netlab.Segment, a [2]string) netlab.Port { return s.Port(a[0]+"/24", a[1]+"/64") }
	d.lab.Router("router", port(left, routerLeft), port(right, routerRight), port(outer, routerOuter))
	d.outside = d.lab.Node("outside", port(outer, outerHost))
	node1 := d.cluster.AddNode("node1", port(left, [2]string{"172.30.0.1", "fd00:30::1"}))
	node2 := d.cluster.AddNode("node2", port(left, [2]string{"172.30.0.2", "fd00:30::2"}))
	node3 := d.cluster.AddNode("node3", port(right, [2]string{"172.30.1.3", "fd00:30:1::3"}))
	d.nodes = slices.Clone(d.cluster.Nodes)
	for n, gateways := range map[*netlab.Node][2]string{
		d.outside: routerOuter, node1.Node: routerLeft, node2.Node: routerLeft, node3.Node: routerRight,
	} {
		for _, gateway := range gateways {
			if err := n.AddRoute("default", gateway); err != nil {
				return err
			}
		}
	}
	d.Heading("Nodes")
	d.Text("A node is a network namespace. Two of them share a subnet, the third is behind a router. Each has\n" +
		"networks of its own for its pods (podCIDRs, as Kubernetes gives them); the router has no routes to\n" +
		"these.")
	d.Indented(drawing)
	rows := [][]string{{"node", "addresses", "", "podCIDRs", ""}}
	for _, n := range d.nodes {
		rows = append(rows, []string{
			n.Name, n.Addresses[0].String(), n.Addresses[1].String(), n.PodCIDRs[0].String(), n.PodCIDRs[1].String(),
		})
	}
	d.Table(rows)
	return nil
}

// mode is how pods of one node are to reach those of another: "same node",
// "direct" where the nodes share a subnet, and "vxlan" where they do not.
func mode(from, to *cluster.Node) string {
	switch {
	case from == to:
		return "same node"
	case from.Addresses[0].As4()[2] == to.Addresses[0].As4()[2]: // 172.30.SUBNET.HOST
		return "direct"
	}
	return "vxlan"
}
