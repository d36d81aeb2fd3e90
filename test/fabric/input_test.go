package fabric_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// good is the list of nodes that the bad ones are made of: three nodes, each
// entry on a line of its own.
const good = `nodes:
- name: n1
  addresses: [172.30.0.1, "fd00:30::1"]
  podCIDRs: [10.244.1.0/24, "fd00:244:1::/64"]
- name: n2
  addresses: [172.30.0.2, "fd00:30::2"]
  podCIDRs: [10.244.2.0/24, "fd00:244:2::/64"]
- name: n3
  addresses: [172.30.0.3, "fd00:30::3"]
  podCIDRs: [10.244.3.0/24, "fd00:244:3::/64"]
`

// TestBadInput: what is wrong with the list of nodes is said with its line or
// field, in the log and by `flatnetd status`. A list that cannot be read leaves
// everything as it is; an entry that cannot be joined leaves the others alone.
func TestBadInput(t *testing.T) {
	cases := []struct {
		name  string
		bad   string
		says  []string // of the status
		whole bool     // the list as a whole is refused, and n3 stays joined
	}{
		{"no YAML", strings.Replace(good, "- name: n2", "- name: [n2", 1), []string{"line 5"}, true},
		{"an unknown field", strings.Replace(good, "  podCIDRs: [10.244.3", "  podCIDR: [10.244.3", 1), []string{"line 10", "podCIDR"}, true},
		{"no address", strings.Replace(good, "172.30.0.3", "172.30.0.300", 1), []string{"line 9", "addresses[0]", "172.30.0.300"}, true},
		{"no prefix", strings.Replace(good, "10.244.3.0/24", "10.244.3.0", 1), []string{"line 10", "podCIDRs[0]", "10.244.3.0"}, true},
		{"host bits", strings.Replace(good, "10.244.3.0/24", "10.244.3.7/24", 1), []string{"line 10", "podCIDRs[0]", "10.244.3.7/24", "10.244.3.0/24"}, true},
		{"a podCIDR of the wrong kind", strings.Replace(good, "10.244.3.0/24", "127.0.0.0/24", 1), []string{"node n3", "podCIDRs[0]", "127.0.0.0/24"}, false},
		{"zero nodes", "nodes: []\n", []string{"nodes.yaml", "node"}, true},
		{"an empty file", "", []string{"nodes.yaml", "node"}, true},
		{"half a file", good[:len(good)/2], []string{"line"}, true},
		{"a million routes", good + manyRoutes(1_000_000), []string{"nodes.yaml", "larger than 16 MiB"}, true},
		{"a thousand routes", good + manyRoutes(1000), []string{"node n4", "podCIDRs", "1000"}, false},
		{"an overlap", strings.Replace(good, "10.244.3.0/24", "10.244.2.128/25", 1), []string{"node n3", "podCIDRs[0]", "10.244.2.128/25", "overlaps 10.244.2.0/24 of node n2"}, false},
		{"an overlap with the own node", strings.Replace(good, "10.244.3.0/24", "10.244.0.0/16", 1), []string{"node n3", "podCIDRs[0]", "10.244.0.0/16", "overlaps 10.244.1.0/24 of node n1"}, false},
		{"a podCIDR over the underlay", strings.Replace(good, "10.244.3.0/24", "172.30.0.0/16", 1), []string{"node n3", "podCIDRs[0]", "172.30.0.0/16"}, false},
		{"a podCIDR over a local route", strings.Replace(good, "10.244.3.0/24", "10.9.0.0/16", 1), []string{"node n3", "10.9.0.0/16", "10.9.1.0/24", "bridge9"}, false},
		{"one address twice", strings.Replace(good, "172.30.0.3", "172.30.0.2", 1), []string{"node n3", "addresses[0]", "172.30.0.2", "node n2"}, false},
		{"one name twice", strings.Replace(good, "- name: n3", "- name: n2", 1), []string{"n2", "name"}, true},
		{"a family that this node does not have", strings.Replace(good, `172.30.0.3, "fd00:30::3"`, `"fd00:30::3"`, 1), []string{"node n3", "10.244.3.0/24"}, false},
	}
	t.Parallel()
	s := newSite(t, topologies[1], cluster.Dual)
	n := s.Node("n1")
	get(n.Output("sh", "-ec", "ip link add bridge9 type bridge; ip link set bridge9 up; ip addr add 10.9.1.1/24 dev bridge9"))(t)
	s.WriteNodesText(good)
	for _, n := range s.Nodes {
		n.Start("--fabric", "direct")
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	one, two, three := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two"), placePod(t, s.Node("n3"), "three")
	intact := ours(t, n)
	ping, stream := one.ping(t, two, false), one.stream(t, two, true)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := len(n.Log())
			s.WriteNodesText(c.bad)
			await(t, "the problem to be told", func() error {
				text, err := n.Flatnetd("status")
				for _, want := range c.says {
					if err == nil && !strings.Contains(problemsOf(text), want) {
						err = fmt.Errorf("%q is not in\n%s", want, text)
					}
				}
				return err
			})
			for _, want := range c.says {
				if !strings.Contains(n.Log()[log:], strings.TrimPrefix(want, "node ")) {
					t.Errorf("%q is not in the log:\n%s", want, n.Log()[log:])
				}
			}
			if now := ours(t, n); c.whole && now != intact {
				t.Errorf("the state has changed:%s", differing(intact, now))
			}
			for _, ipv6 := range s.families.Each() {
				one.reaches(t, two, ipv6)
			}
			if c.whole {
				one.reaches(t, three, false)
			}
			s.WriteNodesText(good)
			await(t, "the problem to be over", func() error {
				if problems := n.Status().Problems; len(problems) > 0 {
					return fmt.Errorf("%v", problems)
				}
				if now := ours(t, n); now != intact {
					return fmt.Errorf("%s", differing(intact, now))
				}
				return nil
			})
		})
	}
	ping.end(t)
	stream.end(t)
}

// problemsOf is what `flatnetd status` says about problems.
func problemsOf(status string) string {
	_, problems, _ := strings.Cut(status, "\nproblems: ")
	return problems
}

// manyRoutes is a node with far too many podCIDRs.
func manyRoutes(count int) string {
	var b strings.Builder
	fmt.Fprint(&b, "- name: n4\n  addresses: [172.30.0.4]\n  podCIDRs:\n")
	for i := range count {
		fmt.Fprintf(&b, "  - 10.%d.%d.%d/32\n", 128+i>>16, i>>8&0xff, i&0xff)
	}
	return b.String()
}

// TestListWithoutOwnNode: such a list cannot be the whole one. The node goes on
// with what it knew, and says so.
func TestListWithoutOwnNode(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start()
	n1 := s.Node("n1")
	intact := ours(t, n1)
	s.Remove(n1)
	s.WriteNodes()
	await(t, "n1 to say that it is not in the list", func() error {
		if text := get(n1.Flatnetd("status"))(t); !strings.Contains(problemsOf(text), "node n1 is not in the source of nodes") {
			return fmt.Errorf("status:\n%s", text)
		}
		return nil
	})
	if now := ours(t, n1); now != intact {
		t.Errorf("the state has changed:%s", differing(intact, now))
	}
	// That is so after a restart as well, when it knows nothing else.
	n1.Stop()
	n1.StartAgain()
	await(t, "n1 to say that it is not in the list", func() error {
		status, err := n1.TryStatus()
		if err == nil && !strings.Contains(status.NotReady, "node n1 is not in the source of nodes") {
			err = fmt.Errorf("not ready: %q", status.NotReady)
		}
		return err
	})
	if now := ours(t, n1); now != intact {
		t.Errorf("the state has changed:%s", differing(intact, now))
	}
}

// TestNodesFileComesLate: without the file flatnetd waits, and says so; a
// podCIDR that is not assigned yet is waited for as well.
func TestNodesFileComesLate(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	n := s.Node("n1")
	n.Start()
	await(t, "flatnetd to say what it waits for", func() error {
		text, err := n.Flatnetd("status")
		if err == nil && !(strings.Contains(text, "NOT READY") && strings.Contains(text, s.NodesFile)) {
			err = fmt.Errorf("status:\n%s", text)
		}
		return err
	})
	podCIDRs := n.PodCIDRs
	n.PodCIDRs = nil
	s.WriteNodes()
	s.Node("n2").Start()
	s.Node("n2").WaitReady()
	await(t, "flatnetd to say that it has no podCIDR", func() error {
		if reason := n.Status().NotReady; reason != "node n1 has no podCIDR yet" {
			return fmt.Errorf("not ready: %q", reason)
		}
		return nil
	})
	if _, err := os.Stat(n.Conflist()); err == nil {
		t.Error("the plugin's configuration is there before the podCIDR")
	}
	if peers := s.Node("n2").Status().Peers; len(peers) != 1 || peers[0].Mode != "waiting" {
		t.Errorf("n2 says %v of n1", peers)
	}
	n.PodCIDRs = podCIDRs
	s.WriteNodes()
	n.WaitReady()
	one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
	for _, ipv6 := range s.families.Each() {
		one.awaitReach(t, two, ipv6)
		two.awaitReach(t, one, ipv6)
	}
}

// TestOwnPodCIDRIsTaken: a node whose own podCIDR is refused keeps its pods from
// being started, and does not break others.
func TestOwnPodCIDRIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[1], cluster.IPv4)
	n3 := s.Node("n3")
	get(n3.Output("sh", "-ec", "ip link add bridge9 type bridge; ip link set bridge9 up; ip addr add 10.250.1.1/24 dev bridge9"))(t)
	n3.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.250.0.0/16")}
	s.WriteNodes()
	for _, n := range s.Nodes {
		n.Start()
	}
	for _, n := range s.Nodes[:2] {
		n.WaitReady()
	}
	await(t, "n3 to say why", func() error {
		status, err := n3.TryStatus()
		if problems := fmt.Sprint(status.Problems); err == nil && !(strings.Contains(problems, "10.250.0.0/16") && strings.Contains(problems, "bridge9")) {
			err = fmt.Errorf("problems: %v", problems)
		}
		return err
	})
	if _, err := os.Stat(n3.Conflist()); err == nil {
		t.Error("the plugin's configuration is there without a podCIDR")
	}
	one, two := placePod(t, s.Node("n1"), "one"), placePod(t, s.Node("n2"), "two")
	one.reaches(t, two, false)
}
