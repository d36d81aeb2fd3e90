package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/test/binaries"
)

func TestRates(t *testing.T) {
	ours, theirs := rates{98, 40, 99}, rates{100, 80, 90}
	same := func(f float64) float64 { return f }
	for _, c := range []struct{ what, got, want string }{
		{"shown", ours.shown(same), "98.0 (40.0–99.0)"},
		{"shown as time", rates{1e5, 2e5, 4e5}.shown(microseconds), "5.00 (2.50–10.0)"},
		{"none", rates{}.shown(same), ""},
		{"reached", ours.over(theirs).verdict(0.97), "0.98 (0.50–1.10) reached"},
		{"not reached", ours.over(theirs).verdict(0.99), "0.98 (0.50–1.10) not reached"},
		{"without a target", ours.over(theirs).verdict(0), "0.98 (0.50–1.10)"},
		{"not measured", ours.over(nil).verdict(0.97), ""},
		{"large", digits(12345.6), "12346"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestBar(t *testing.T) {
	for share, want := range map[float64]string{
		0: "░░░░░░░░░░ ", 0.26: "███░░░░░░░ ", 1: "██████████ ", 1.2: "██████████▶",
	} {
		if got := bar(share); got != want {
			t.Errorf("%g of the target: got %q, want %q", share, got, want)
		}
	}
}

// Every node of the largest population can be joined, wherever its peers move.
func TestPopulationIsAcceptable(t *testing.T) {
	p := population{5000, map[int]bool{}}
	for j := range 100 {
		if peer := p.move(j); peer < 2 || peer > p.n {
			t.Fatalf("node %d moved", peer)
		}
	}
	if len(p.moved) != 100 {
		t.Errorf("100 moves are of %d nodes", len(p.moved))
	}
	var nodes []node.Node
	for i := 1; i <= p.n; i++ {
		n := node.Node{Name: nodeName(i)}
		for _, a := range p.addresses(i) {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
		}
		for _, c := range p.podCIDRs(i) {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(c))
		}
		nodes = append(nodes, n)
	}
	if accepted, refused := node.Judge(nodeName(1), nodes); len(accepted) != p.n || len(refused) != 0 {
		t.Errorf("%d are accepted, %d refused, such as %v", len(accepted), len(refused), refused[:min(3, len(refused))])
	}
	if size := p.object(1).Size(); size < 10_000 || size > 30_000 {
		t.Errorf("a Node has %d bytes, which is not what it has in real clusters", size)
	}
}

// network is a benchmark that runs the real flatnetd.
func network(t *testing.T) *bench {
	t.Helper()
	b := programs(t)
	ours, err := binaries.BuildForTest()
	if err != nil {
		t.Fatal(err)
	}
	b.ours, b.peers = ours, "/usr/lib/cni"
	return b
}

func TestPathsOfEverybody(t *testing.T) {
	b := network(t)
	for _, where := range []place{sameNode, direct, vxlan} {
		found, err := measurePath(where)(t.Context(), b)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		shown := fmt.Sprint(found)
		for _, want := range []string{
			"| bare ", "| by hand ", "| by hand + masquerade ", "| flatnet ", "| flatnet, routes only ", "| flatnet / by hand ", "reached",
		} {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: %q is not in\n%s", where, want, shown)
			}
		}
	}
}

func TestScaleOfEverySource(t *testing.T) {
	b := network(t)
	found, err := measureScale(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprint(found)
	for _, want := range []string{"| direct, 10 ", "| vxlan, 20 ", "| direct, 20 of Kubernetes ", "| direct, 20 of Kubernetes before 1.32 ", "vxlan, 20: first sync"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
}

func TestRepairs(t *testing.T) {
	found, err := measureRepair(t.Context(), network(t))
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprint(found)
	for _, want := range []string{"| repaired: all routes are flushed ", "| repaired: the ruleset is flushed ", "| ended after SIGTERM ", "| the overlay's device is deleted: repaired "} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	t.Logf("\n%s", shown)
}
