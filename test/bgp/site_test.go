package bgp_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// site is what package bgp_test is about.
type site struct {
	*cluster.Cluster
	t              *testing.T
	n1, n2         *cluster.Node
	a1, a2, b1, b2 *router
	world          *netlab.Node
	config         string // path
}

const usual = `
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

// newSite makes all but what runs.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Cluster: cluster.Start(t), t: t}
	rackA, rackB, spine := s.Lab.Segment("a"), s.Lab.Segment("b"), s.Lab.Segment("spine")
	s.n1 = s.AddNode("n1", rackA.Port("172.30.0.1/24", "fd00:30:0::1/64"))
	s.n2 = s.AddNode("n2", rackB.Port("172.30.1.2/24", "fd00:30:1::2/64"))
	s.world = s.Lab.Node("world", spine.Port("172.31.0.9/24", "fd00:31::9/64"))
	for i, r := range []**router{&s.a1, &s.a2, &s.b1, &s.b2} {
		rack := i / 2
		segment := []*netlab.Segment{rackA, rackB}[rack]
		name := []string{"a1", "a2", "b1", "b2"}[i]
		*r = &router{
			Node: s.Lab.Router(name, segment.Port(fmt.Sprintf("172.30.%d.%d/24", rack, 251+i%2), fmt.Sprintf("fd00:30:%d::%d/64", rack, 251+i%2)),
				spine.Port(fmt.Sprintf("172.31.0.%d/24", 1+i), fmt.Sprintf("fd00:31::%d/64", 1+i))),
			name: name, directory: filepath.Join(s.Directory, name), bird: i%2 == 0, asn: 64601 + rack, rack: rack, host: 251 + i%2,
		}
		must(t, os.MkdirAll((*r).directory, 0o755))
		must(t, (*r).SetSysctl("net/ipv4/conf/all/rp_filter", "0"))
	}
	// Without BGP nodes know their routers, and nothing else.
	for rack, n := range []*cluster.Node{s.n1, s.n2} {
		for _, arguments := range [][]string{
			{"route", "add", "default", "nexthop", "via", fmt.Sprintf("172.30.%d.251", rack), "nexthop", "via", fmt.Sprintf("172.30.%d.252", rack)},
			{"-6", "route", "add", "default", "nexthop", "via", fmt.Sprintf("fd00:30:%d::251", rack), "nexthop", "via", fmt.Sprintf("fd00:30:%d::252", rack)},
		} {
			_, err := n.Output("ip", arguments...)
			must(t, err)
		}
	}
	for _, arguments := range [][]string{
		{"route", "add", "default", "nexthop", "via", "172.31.0.1", "nexthop", "via", "172.31.0.2"},
		{"-6", "route", "add", "default", "nexthop", "via", "fd00:31::1", "nexthop", "via", "fd00:31::2"},
	} {
		_, err := s.world.Output("ip", arguments...)
		must(t, err)
	}
	s.config = filepath.Join(s.Directory, "bgp.yaml")
	t.Cleanup(func() {
		for _, r := range s.routers() {
			if t.Failed() {
				log, _ := os.ReadFile(r.file("log"))
				t.Logf("log of %s:\n%s", r.name, log)
				for _, q := range map[bool][]string{true: {"show protocols", "show route"}, false: {"show bgp summary", "show bgp ipv4", "show bgp ipv6"}}[r.bird] {
					text, _ := r.tryAsk(q)
					t.Logf("%s: %s:\n%s", r.name, q, text)
				}
			}
			r.kill()
		}
	})
	return s
}

func (s *site) routers() []*router { return []*router{s.a1, s.a2, s.b1, s.b2} }

func (s *site) configure(text string) {
	s.t.Helper()
	fresh := s.config + ".fresh"
	must(s.t, os.WriteFile(fresh, []byte(text), 0o644))
	must(s.t, os.Rename(fresh, s.config))
}

// up starts everything, and waits until agents are ready.
func (s *site) up(flags ...string) {
	s.t.Helper()
	for _, r := range s.routers() {
		r.start(s.t)
	}
	if _, err := os.Stat(s.config); err != nil {
		s.configure(usual)
	}
	s.writeNodes()
	for _, n := range s.Nodes {
		n.Start(append([]string{"--bgp-config", s.config}, flags...)...)
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
}

// upWithPods is up, with a pod on each node. It waits until each node reaches the other's
// pods by both of its routers.
func (s *site) upWithPods(flags ...string) (one, two *cluster.Pod) {
	s.t.Helper()
	s.up(flags...)
	for _, n := range s.Nodes {
		s.joined(n, "bgp", 2)
	}
	return s.n1.Pod("one"), s.n2.Pod("two")
}

func (s *site) writeNodes() {
	var b strings.Builder
	fmt.Fprintln(&b, "nodes:")
	for i, n := range s.Nodes {
		fmt.Fprintf(&b, "- {name: %s, labels: {rack: %c}, addresses: [%q, %q], podCIDRs: [%q, %q]}\n", n.Name, 'a'+i%2, n.Addresses[0], n.Addresses[1], n.PodCIDRs[0], n.PodCIDRs[1])
	}
	s.WriteNodesText(b.String())
}

// joined waits until a node reaches the other's pods in both families in a way, by so many
// next hops.
func (s *site) joined(n *cluster.Node, mode string, hops int) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%s to reach its peer by %s, %d next hops", n.Name, mode, hops), func() error {
		status, err := n.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range status.Peers {
			for _, w := range p.Ways {
				if string(w.Mode) != mode || !w.Present || max(1, len(w.Hops)) != hops {
					return fmt.Errorf("%s is reached by %+v", w.PodCIDR, w)
				}
			}
		}
		return nil
	})
}

func (s *site) bgp(n *cluster.Node) (b agent.BGPStatus) {
	s.t.Helper()
	await(s.t, "the status of BGP on "+n.Name, func() (err error) {
		b, err = agent.AskBGP(s.t.Context(), n.StateDir)
		return err
	})
	return b
}

// reaches has a namespace connect to a pod, which has to see its own address.
func (s *site) reaches(from *netlab.Namespace, source, to netip.Addr, pod *netlab.Namespace) {
	s.t.Helper()
	at, stop, err := pod.Echo(netip.AddrPortFrom(to, 0))
	must(s.t, err)
	defer stop()
	await(s.t, fmt.Sprintf("%s to reach %s", source, to), func() error {
		seen, _, err := from.Ask(source, at, waitTime)
		if err != nil {
			return err
		}
		if seen != source {
			return fmt.Errorf("%s is seen as %s", source, seen)
		}
		return nil
	})
}
