package cluster

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Families says which address families nodes have.
type Families int

// The families; Dual is both, IPv4 first.
const (
	IPv4 Families = 1 << iota
	IPv6
	Dual = IPv4 | IPv6
)

func (f Families) String() string {
	return [...]string{"none", "IPv4", "IPv6", "dual"}[f]
}

// Each returns false where IPv4 is among the families, and true where IPv6 is.
func (f Families) Each() (ipv6 []bool) {
	if f&IPv4 != 0 {
		ipv6 = append(ipv6, false)
	}
	if f&IPv6 != 0 {
		ipv6 = append(ipv6, true)
	}
	return ipv6
}

// port is a place on a segment: 172.30.S.H/24 and fd00:30:S::H/64.
func (f Families) port(s *netlab.Segment, number, host int) netlab.Port {
	var addresses []string
	if f&IPv4 != 0 {
		addresses = append(addresses, fmt.Sprintf("172.30.%d.%d/24", number, host))
	}
	if f&IPv6 != 0 {
		addresses = append(addresses, fmt.Sprintf("fd00:30:%d::%d/64", number, host))
	}
	return s.Port(addresses...)
}

// routerHost is the router's last number on each segment.
const routerHost = 254

// Subnet is a segment of the underlay, with the numbers of its nodes.
type Subnet struct {
	*netlab.Segment
	cluster  *Cluster
	families Families
	number   int
	router   bool
}

// AddNode adds the cluster's next node, named n1, n2, …, with the addresses
// 172.30.S.N and fd00:30:S::N, and default routes where there is a router.
func (s *Subnet) AddNode() *Node {
	number := s.cluster.numbered + 1
	n := s.cluster.AddNode(fmt.Sprintf("n%d", number), s.families.port(s.Segment, s.number, number))
	if s.router {
		s.addDefaultRoutes(n)
	}
	return n
}

func (s *Subnet) addDefaultRoutes(n *Node) {
	for _, ipv6 := range s.families.Each() {
		gateway := fmt.Sprintf("172.30.%d.%d", s.number, routerHost)
		if ipv6 {
			gateway = fmt.Sprintf("fd00:30:%d::%d", s.number, routerHost)
		}
		if err := n.AddRoute("default", gateway); err != nil {
			s.cluster.Lab.Fail(err)
		}
	}
}

// OneSegment adds nodes n1, n2, … on one layer 2 network.
func (c *Cluster) OneSegment(f Families, nodes int) *Subnet {
	s := &Subnet{Segment: c.Lab.Segment("a"), cluster: c, families: f}
	for range nodes {
		s.AddNode()
	}
	return s
}

// TwoSegments adds nodes on two layer 2 networks, those of a first, and a router
// between that knows nothing of pods.
func (c *Cluster) TwoSegments(f Families, left, right int) (a, b *Subnet, router *netlab.Node) {
	a = &Subnet{Segment: c.Lab.Segment("a"), cluster: c, families: f, router: true}
	b = &Subnet{Segment: c.Lab.Segment("b"), cluster: c, families: f, router: true, number: 1}
	router = c.Lab.Router("router", f.port(a.Segment, 0, routerHost), f.port(b.Segment, 1, routerHost))
	for range left {
		a.AddNode()
	}
	for range right {
		b.AddNode()
	}
	return a, b, router
}
