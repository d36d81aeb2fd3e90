// Package racks makes what BGP is for, of namespaces, and of routers that nobody here wrote,
// BIRD and FRR: two racks with two routers each, and a machine outside.
//
//	rack a: n1, a1 (BIRD), a2 (FRR)   172.30.0.0/24, fd00:30::/64
//	rack b: n2, b1 (BIRD), b2 (FRR)   172.30.1.0/24, fd00:30:1::/64
//	spine:  a1, a2, b1, b2, world     172.31.0.0/24, fd00:31::/64
//
// Nodes are AS 64512, racks' routers AS 64601 and 64602. Every session is external, in both
// families.
package racks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Racks is what the package is about.
type Racks struct {
	*cluster.Cluster
	N1, N2         *cluster.Node
	A1, A2, B1, B2 *Router
	World          *netlab.Node
	Config         string // path of the nodes' configuration of BGP
}

// Usual is a configuration of BGP that has the nodes speak to their racks' routers.
const Usual = `
asn: 64512
restartTime: 60s
peers:
- {name: a1, address: 172.30.0.251, asn: 64601, nodes: rack=a, connectRetry: 1s}
- {name: a2, address: 172.30.0.252, asn: 64601, nodes: rack=a, connectRetry: 1s}
- {name: a1v6, address: "fd00:30:0::251", asn: 64601, nodes: rack=a, connectRetry: 1s}
- {name: a2v6, address: "fd00:30:0::252", asn: 64601, nodes: rack=a, connectRetry: 1s}
- {name: b1, address: 172.30.1.251, asn: 64602, nodes: rack=b, connectRetry: 1s}
- {name: b2, address: 172.30.1.252, asn: 64602, nodes: rack=b, connectRetry: 1s}
- {name: b1v6, address: "fd00:30:1::251", asn: 64602, nodes: rack=b, connectRetry: 1s}
- {name: b2v6, address: "fd00:30:1::252", asn: 64602, nodes: rack=b, connectRetry: 1s}
accept:
  podCIDRs: true
  prefixes:
  - {prefix: 172.16.0.0/12, minLength: 16, maxLength: 24}
  - {prefix: "fd00:31::/64"}
`

// New makes all but what runs.
func New(c *cluster.Cluster) (*Racks, error) {
	s := &Racks{Cluster: c, Config: filepath.Join(c.Directory, "bgp.yaml")}
	rackA, rackB, spine := s.Lab.Segment("a"), s.Lab.Segment("b"), s.Lab.Segment("spine")
	s.N1 = s.AddNode("n1", rackA.Port("172.30.0.1/24", "fd00:30:0::1/64"))
	s.N2 = s.AddNode("n2", rackB.Port("172.30.1.2/24", "fd00:30:1::2/64"))
	s.World = s.Lab.Node("world", spine.Port("172.31.0.9/24", "fd00:31::9/64"))
	for i, r := range []**Router{&s.A1, &s.A2, &s.B1, &s.B2} {
		rack := i / 2
		segment := []*netlab.Segment{rackA, rackB}[rack]
		name := []string{"a1", "a2", "b1", "b2"}[i]
		*r = &Router{
			Node: s.Lab.Router(name, segment.Port(fmt.Sprintf("172.30.%d.%d/24", rack, 251+i%2), fmt.Sprintf("fd00:30:%d::%d/64", rack, 251+i%2)),
				spine.Port(fmt.Sprintf("172.31.0.%d/24", 1+i), fmt.Sprintf("fd00:31::%d/64", 1+i))),
			Name: name, Directory: filepath.Join(s.Directory, name), IsBIRD: i%2 == 0, ASN: 64601 + rack, Rack: rack, Host: 251 + i%2,
		}
		if err := os.MkdirAll((*r).Directory, 0o755); err != nil {
			return nil, err
		}
		// IPv6 addresses are still there when a link that went down is up again, as IPv4's are.
		for key, value := range map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv6/conf/all/keep_addr_on_down": "1"} {
			if err := (*r).SetSysctl(key, value); err != nil {
				return nil, err
			}
		}
	}
	// Without BGP nodes know their routers, and nothing else.
	for rack, n := range []*cluster.Node{s.N1, s.N2} {
		for _, arguments := range [][]string{
			{"route", "add", "default", "nexthop", "via", fmt.Sprintf("172.30.%d.251", rack), "nexthop", "via", fmt.Sprintf("172.30.%d.252", rack)},
			{"-6", "route", "add", "default", "nexthop", "via", fmt.Sprintf("fd00:30:%d::251", rack), "nexthop", "via", fmt.Sprintf("fd00:30:%d::252", rack)},
		} {
			if _, err := n.Output("ip", arguments...); err != nil {
				return nil, err
			}
		}
	}
	for _, arguments := range [][]string{
		{"route", "add", "default", "nexthop", "via", "172.31.0.1", "nexthop", "via", "172.31.0.2"},
		{"-6", "route", "add", "default", "nexthop", "via", "fd00:31::1", "nexthop", "via", "fd00:31::2"},
	} {
		if _, err := s.World.Output("ip", arguments...); err != nil {
			return nil, err
		}
	}

	return s, nil
}

// Routers are all four.
func (s *Racks) Routers() []*Router { return []*Router{s.A1, s.A2, s.B1, s.B2} }

// Configure writes the nodes' configuration of BGP.
func (s *Racks) Configure(text string) error {
	fresh := s.Config + ".fresh"
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, s.Config)
}

// WriteNodes writes the list of nodes, with their racks.
func (s *Racks) WriteNodes() { s.WriteNodesText(s.NodesText()) }

// NodesText is the list of nodes.
func (s *Racks) NodesText() string {
	var b strings.Builder
	fmt.Fprintln(&b, "nodes:")
	for i, n := range s.Nodes {
		fmt.Fprintf(&b, "- {name: %s, labels: {rack: %c}, addresses: [%q, %q], podCIDRs: [%q, %q]}\n", n.Name, 'a'+i%2, n.Addresses[0], n.Addresses[1], n.PodCIDRs[0], n.PodCIDRs[1])
	}
	return b.String()
}
