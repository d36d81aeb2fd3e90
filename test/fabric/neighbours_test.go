package fabric_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestForeignRouteInTheWay: a route that somebody else has to a podCIDR is a
// problem that is told, and is left alone. When it is gone, ours is back.
func TestForeignRouteInTheWay(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[1], cluster.Dual)
	s.Start("--fabric", "direct")
	n := s.Node("n1")
	one, two, three := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two"), placePod(t, s.Node("n3"), "three")
	intact := ours(t, n)
	ping := one.ping(t, three, false)
	for _, route := range []string{
		"10.244.2.0/24 via 172.30.0.3 proto static", "10.244.2.128/25 via 172.30.0.3 proto static", "10.244.2.7/32 via 172.30.0.3 proto static",
	} {
		get(n.Output("sh", "-ec", "ip route replace "+route))(t)
		await(t, "the route to be told of", func() error {
			problems := fmt.Sprint(n.Status().Problems)
			if destination, _, _ := strings.Cut(route, " "); !strings.Contains(problems, destination) || !strings.Contains(problems, "n2") {
				return fmt.Errorf("problems: %s", problems)
			}
			return nil
		})
		if there := get(n.Output("sh", "-ec", "ip route show proto static"))(t); !strings.Contains(there, strings.TrimSuffix(strings.Fields(route)[0], "/32")) {
			t.Errorf("somebody else's route %s is gone: %s", route, there)
		}
		// The other family has nothing to do with it.
		one.reaches(t, two, true)
		get(n.Output("sh", "-ec", "ip route del "+route))(t)
		one.awaitReach(t, two, false)
		await(t, "everything to be as before", func() error {
			if now := ours(t, n); now != intact || len(n.Status().Problems) > 0 {
				return fmt.Errorf("problems: %v%s", n.Status().Problems, differing(intact, now))
			}
			return nil
		})
	}
	ping.end(t)
}

// TestForwardThatDrops: where somebody's FORWARD chain drops by policy, as that
// of docker does, pods' packets are let pass by a rule of our own, which
// cleanup takes away.
func TestForwardThatDrops(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	n := s.Node("n1")
	const drop = `set -e
for f in ip ip6; do
nft add table $f filter
nft "add chain $f filter FORWARD { type filter hook forward priority 0; policy drop; }"
done`
	get(n.Output("sh", "-c", drop))(t)
	before := get(n.Output("nft", "list", "ruleset"))(t)
	s.Start()
	one, neighbour, two := placePod(t, n, "one"), placePod(t, n, "neighbour"), placePod(t, s.Node("n2"), "two")
	reach := func() {
		t.Helper()
		for _, ipv6 := range s.families.Each() {
			one.awaitReach(t, two, ipv6)
			two.awaitReach(t, one, ipv6)
			one.awaitReach(t, neighbour, ipv6)
		}
	}
	reach()
	// Docker sets the policy, and may make its chains anew, when it starts.
	get(n.Output("sh", "-c", "nft delete table ip filter; nft delete table ip6 filter;"+drop))(t)
	reach()
	get(n.Output("sh", "-c", "nft flush chain ip filter FORWARD; nft flush chain ip6 filter FORWARD"))(t)
	reach()
	n.Stop()
	get(n.Flatnetd("cleanup"))(t)
	if after := get(n.Output("nft", "list", "ruleset"))(t); after != before {
		t.Errorf("after cleanup, the ruleset is\n%s\nbefore it was\n%s", after, before)
	}
}
