package fabric_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// wayTo returns the status of the way to a peer in a family.
func wayTo(n, peer *cluster.Node, ipv6 bool) (agent.WayStatus, error) {
	status, err := n.TryStatus()
	if err != nil {
		return agent.WayStatus{}, err
	}
	for _, p := range status.Peers {
		for _, w := range p.Ways {
			if p.Name == peer.Name && w.PodCIDR.Addr().Is6() == ipv6 {
				return w, nil
			}
		}
	}
	return agent.WayStatus{}, fmt.Errorf("%s has no way to %s", n.Name, peer.Name)
}

// awaitHealth waits until a node says of a way what is wanted of it.
func awaitHealth(t *testing.T, n, peer *cluster.Node, ipv6 bool, state health.State, fullSize string) {
	t.Helper()
	took := await(t, fmt.Sprintf("%s to say that %s is %s, %s", n.Name, peer.Name, state, familyName(ipv6)), func() error {
		w, err := wayTo(n, peer, ipv6)
		if err != nil {
			return err
		}
		if h := w.Health; h == nil || h.State != string(state) || h.FullSize != fullSize {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	t.Logf("%s says that %s is %s (full size %q), %s: after %.1fs", n.Name, peer.Name, state, fullSize, familyName(ipv6), took.Seconds())
}

// awaitAllWell waits until all nodes say that all are well.
func (s *site) awaitAllWell(t *testing.T) {
	t.Helper()
	for _, n := range s.Nodes {
		for _, peer := range s.Nodes {
			for _, ipv6 := range s.families.Each() {
				if n != peer {
					awaitHealth(t, n, peer, ipv6, health.OK, health.FullOK)
				}
			}
		}
	}
	for _, n := range s.Nodes {
		await(t, n.Name+" to have no problems", func() error {
			if problems := n.Status().Problems; len(problems) > 0 {
				return fmt.Errorf("%v", problems)
			}
			return nil
		})
	}
}

// awaitProblem waits until a node has a problem of a kind with a peer, and looks at what
// it says.
func awaitProblem(t *testing.T, n, peer *cluster.Node, kind string, says ...string) {
	t.Helper()
	await(t, fmt.Sprintf("%s to tell of %s", n.Name, kind), func() error {
		status, err := n.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range status.Problems {
			if p.Kind != kind || p.Node != peer.Name {
				continue
			}
			text := p.Object + ": " + p.Reason + "; " + p.Advice
			for _, want := range says {
				if !strings.Contains(text, want) {
					return fmt.Errorf("%q is not in %s", want, text)
				}
			}
			return nil
		}
		return fmt.Errorf("problems: %+v", status.Problems)
	})
}

// drop has a machine drop what rules match in its chain of forwarded, or with input of
// received packets, until it is called off.
func drop(t *testing.T, at *netlab.Node, hook string, rules ...string) (undo func()) {
	t.Helper()
	text := "add table inet cut; add chain inet cut drops { type filter hook " + hook + " priority 0; }"
	for _, r := range rules {
		text += "; add rule inet cut drops " + r + " counter drop"
	}
	get(at.Output("nft", text))(t)
	return func() {
		t.Helper()
		get(at.Output("nft", "delete table inet cut"))(t)
	}
}

// TestWhatGetsLostIsTold: packets that vanish between two nodes that are configured well
// are a problem of the node that misses the answers, with what to do; it is over when they
// arrive again. Nodes stay ready meanwhile.
func TestWhatGetsLostIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	s.Health = "auto"
	s.Start()
	s.awaitAllWell(t)
	n1, n2, n3 := s.Node("n1"), s.Node("n2"), s.Node("n3")

	// A firewall between the subnets that does not know of the overlay.
	undo := drop(t, s.router, "forward", "udp dport 4789")
	for _, ipv6 := range s.families.Each() {
		awaitHealth(t, n1, n3, ipv6, health.Lost, "")
		awaitHealth(t, n1, n2, ipv6, health.OK, health.FullOK)
	}
	awaitProblem(t, n1, n3, "peer-lost", "podCIDR 10.244.3.0/24: ", "vxlan to 172.30.1.3", "UDP port 4789", "between 172.30.0.1 and it")
	status := n1.Status()
	if len(status.Problems) != 1 || len(status.Problems[0].Follows) != 1 || !status.Ready {
		t.Errorf("ready %t, the problems are %+v", status.Ready, status.Problems)
	}
	m := n1.Metrics()
	if m[`flatnet_peer_health{state="lost"}`] != 1 || m[`flatnet_peer_health{state="ok"}`] != 1 || m[`flatnet_probes_total{result="lost"}`] == 0 || m[`flatnet_peer_round_trip_seconds_count`] == 0 {
		t.Errorf("metrics: %v", m)
	}
	text := get(n1.Flatnetd("status"))(t)
	if !strings.Contains(text, "LOST") {
		t.Errorf("status:\n%s", text)
	}
	t.Log(text)
	undo()
	s.awaitAllWell(t)
	if log := n1.Log(); strings.Count(log, `msg="problem is over"`) == 0 {
		t.Errorf("the end of the problem is not logged:\n%s", log)
	}

	// One family on link alone.
	undo = drop(t, n2.Node, "prerouting", "ip6 saddr fd00:244:1::/64")
	awaitHealth(t, n1, n2, true, health.Lost, "")
	awaitHealth(t, n1, n2, false, health.OK, health.FullOK)
	awaitProblem(t, n1, n2, "peer-lost", "podCIDR fd00:244:2::/64: ", "direct via fd00:30::2 dev eth0", "source/destination check")
	undo()
	s.awaitAllWell(t)

	// A network that takes no packets of full size, and says nothing.
	undo = drop(t, s.router, "forward", "ip length > 1400")
	for _, ipv6 := range s.families.Each() {
		awaitHealth(t, n1, n3, ipv6, health.OK, health.FullLost)
	}
	awaitProblem(t, n1, n3, "peer-mtu", "packets of 1450 bytes", "packets of 1500 bytes", "--mtu")
	if m := n1.Metrics(); m[`flatnet_peers_full_size_lost`] != 1 || m[`flatnet_peer_health{state="ok"}`] != 2 {
		t.Errorf("metrics: %v", m)
	}
	undo()
	s.awaitAllWell(t)
}

// TestAnswersNeedNoAgent: it is the kernel that answers; only a machine that is gone does
// not. Policies that refuse pods everything are no reason not to answer.
func TestAnswersNeedNoAgent(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Health = "auto"
	policies := filepath.Join(s.Directory, "policies")
	must(t, os.Mkdir(policies, 0o755))
	must(t, os.WriteFile(filepath.Join(policies, "all.yaml"), []byte(refuseAll), 0o644))
	s.Start("--policies", "--policies-dir", policies, "--policies-file", filepath.Join(s.Directory, "policies.json"))
	n1, n2 := s.Node("n1"), s.Node("n2")
	must(t, n1.Prepare("test", "one").Add())
	must(t, n2.Prepare("test", "two").Add())
	for _, n := range s.Nodes {
		await(t, "the policies to be in force", func() error {
			table, err := n.Output("nft", "list table inet flatnet-policy")
			if want := fmt.Sprintf("10.244.%d.2", n.Number); err == nil && !strings.Contains(table, want) {
				err = fmt.Errorf("%s is not in\n%s", want, table)
			}
			return err
		})
	}
	s.awaitAllWell(t)
	n2.Kill()
	answered := n1.Metrics()[`flatnet_probes_total{result="answered"}`]
	await(t, "more answers", func() error {
		if now := n1.Metrics()[`flatnet_probes_total{result="answered"}`]; now < answered+10 {
			return fmt.Errorf("%v are answered, and were %v", now, answered)
		}
		return nil
	})
	for _, ipv6 := range s.families.Each() {
		awaitHealth(t, n1, n2, ipv6, health.OK, health.FullOK)
	}
	get(n2.Output("ip", "link", "set", "eth0", "down"))(t)
	awaitHealth(t, n1, n2, false, health.Lost, "")
	awaitProblem(t, n1, n2, "peer-lost", "`ping 172.30.0.2`", "host unreachable")
}

// TestRouterThatDoesNotKnowPods: where pods' packets are routed by somebody else, it is
// said who has to know them, and what that one says. A peer that is reached and does not
// answer, as one without probes, is no problem.
func TestRouterThatDoesNotKnowPods(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	s.Health = "auto"
	s.learnPods(t)
	s.WriteNodes()
	for _, n := range s.Nodes {
		flags := []string{"--fabric", "direct"}
		if n.Name == "n2" {
			flags = append(flags, "--health", "off")
		}
		n.Start(flags...)
	}
	for _, n := range s.Nodes {
		n.WaitReady()
	}
	n1, n2, n3 := s.Node("n1"), s.Node("n2"), s.Node("n3")
	for _, ipv6 := range s.families.Each() {
		awaitHealth(t, n1, n3, ipv6, health.OK, health.FullOK)
		awaitHealth(t, n1, n2, ipv6, health.Silent, "")
		awaitHealth(t, n3, n2, ipv6, health.Silent, "")
	}
	status := n2.Status()
	if len(status.Peers) != 2 || status.Peers[0].Health != nil || len(status.Problems) > 0 || len(n1.Status().Problems) > 0 {
		t.Errorf("without probes: %+v, and n1 has problems %+v", status, n1.Status().Problems)
	}
	for name := range n2.Metrics() {
		if strings.HasPrefix(name, "flatnet_peer_") || strings.HasPrefix(name, "flatnet_probes") {
			t.Errorf("without probes there is %s", name)
		}
	}
	get(s.router.Output("ip", "route", "replace", "unreachable", n3.PodCIDRs[0].String()))(t)
	awaitHealth(t, n1, n3, false, health.Lost, "")
	awaitHealth(t, n1, n3, true, health.OK, health.FullOK)
	awaitProblem(t, n1, n3, "peer-lost", "direct via 172.30.0.254 dev eth0", "172.30.0.254 says: host unreachable", "router 172.30.0.254 has to have a route to 10.244.3.0/24")
}

// refuseAll are policies by which no pod may send or receive anything.
const refuseAll = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: test, name: none}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Namespace
metadata: {name: test}
---
apiVersion: v1
kind: Pod
metadata: {namespace: test, name: one}
spec: {nodeName: n1}
status: {podIPs: [{ip: 10.244.1.2}, {ip: "fd00:244:1::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: test, name: two}
spec: {nodeName: n2}
status: {podIPs: [{ip: 10.244.2.2}, {ip: "fd00:244:2::2"}]}
`

// TestAnswersAreTheFabrics: what a node answers at belongs to the fabric. It is made again
// when somebody removes it, stays when the last pod leaves, and goes with the cleanup.
func TestAnswersAreTheFabrics(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Health = "auto"
	s.Start()
	n := s.Node("n1")
	routes := func() string {
		return get(n.Output("sh", "-ec", "ip route show table local proto 70; ip -6 route show table local proto 70"))(t)
	}
	answers := []string{"local 10.244.1.1 dev lo scope host metric 1073741824", "local fd00:244:1::1 dev lo metric 1073741824"}
	there := func() error {
		all := routes()
		for _, a := range answers {
			if !strings.Contains(all, a) {
				return fmt.Errorf("%q is not in\n%s", a, all)
			}
		}
		return nil
	}
	must(t, there())
	placePod(t, n, "one").pod.Delete()
	must(t, there())
	if n.Repairs("route") > 0 {
		t.Error("a pod's end took what the node answers at")
	}
	get(n.Output("sh", "-ec", "ip route flush table local proto 70; ip -6 route flush table local proto 70"))(t)
	await(t, "it to be made again", there)
	n.Stop()
	must(t, there())
	get(n.Flatnetd("cleanup"))(t)
	if all := routes(); all != "" {
		t.Errorf("the cleanup leaves\n%s", all)
	}
}
