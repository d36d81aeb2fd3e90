package loadbalancer_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// others are the nodes of a site but for one.
func (s *site) others(than string) (all []string) {
	for _, n := range s.Nodes {
		if n.Name != than {
			all = append(all, n.Name)
		}
	}
	return all
}

// reaches waits until the client, which nobody tells but the network, has an address lead
// to another node, and gets an answer; it returns that node.
func (s *site) moves(ip netip.Addr, from string) (to string, took time.Duration) {
	s.t.Helper()
	took = s.Eventually(fmt.Sprintf("%s to lead to another node than %s", ip, from), func() error {
		if to = s.resolved(ip); to == from || to == "" {
			return fmt.Errorf("it leads to %q", to)
		}
		_, _, err := s.ask(ip)
		return err
	})
	return to, took
}

// TestNodeDies: what a dead node has answered for another one does; the client's kernel
// learns it by what the other announces.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	var pods []*cluster.Pod
	for _, n := range []string{"n1", "n2", "n3"} {
		pods = append(pods, s.pod(n))
	}
	s.endpoints("web", pods...)
	s.api.Put(serviceObject("web", 1))
	ips := s.held("web", 2)
	ip := ips[0]
	owner := s.agreed(ip, "n1", "n2", "n3")
	s.Eventually("an answer", func() error { _, _, err := s.ask(ip); return err })
	// Its pods are taken out, as Kubernetes does, so that they do not count here.
	s.endpoints("web", slices.DeleteFunc(slices.Clone(pods), func(p *cluster.Pod) bool { return p.Node.Name == owner })...)
	p := startProber(t, s.client.Namespace, ip)
	s.awaitAnswer(p, s.macOf(owner))
	old := s.macOf(owner)
	s.Node(owner).Kill()
	died := p.now()
	for _, link := range []string{"eth0", "eth1"} {
		_, err := s.Node(owner).Output("ip", "link", "set", link, "down")
		must(t, err)
	}
	to, took := s.moves(ip, owner)
	if agreed := s.agreed(ip, s.others(owner)...); agreed != to {
		t.Errorf("%s leads to %s, and %s is to answer", ip, to, agreed)
	}
	first, _, _ := p.answered(s.macOf(to), died)
	t.Logf("%s has died: %s answered %s after that, and the client was there after %s", owner, to, p.between(died, first), took.Round(time.Millisecond))
	if _, last, any := p.answered(old, died+1); any && last >= first {
		t.Errorf("%s has answered question %d, and %s question %d before", owner, last, to, first)
	}
}

// TestDrained: a node that is cordoned gives its addresses to others at once, and gets
// them back; where all nodes are, they answer all the same. That a flatnetd is updated
// moves nothing.
func TestDrained(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.endpoints("web", s.pod("n1"), s.pod("n2"))
	s.api.Put(serviceObject("web", 1))
	ip := s.held("web", 2)[0]
	owner := s.agreed(ip, "n1", "n2")
	other := s.others(owner)[0]
	s.Eventually("an answer", func() error { _, _, err := s.ask(ip); return err })

	p := startProber(t, s.client.Namespace, ip)
	s.awaitAnswer(p, s.macOf(owner))
	at := p.now()
	s.Node(owner).Restart()
	s.Eventually("all to be able to answer", func() error { return s.members(2) })
	if now := s.agreed(ip, "n1", "n2"); now != owner {
		t.Errorf("a restart of flatnetd on %s gave %s to %s", owner, ip, now)
	}
	s.awaitAnswer(p, s.macOf(owner))
	if _, _, any := p.answered(s.macOf(other), at); any {
		t.Errorf("meanwhile %s has answered", other)
	}
	cordon := func(node string, yes bool) {
		o := s.Node(node).Object()
		o.Spec.Unschedulable = yes
		s.api.Put(o)
	}
	at = p.now()
	cordon(owner, true)
	s.moves(ip, owner)
	s.awaitAnswer(p, s.macOf(other))
	first, _, _ := p.answered(s.macOf(other), at)
	t.Logf("%s was cordoned: %s answered after %s, %d questions had two answers", owner, other, p.between(at, first), p.both(at))
	cordon(other, true)
	s.moves(ip, other)
	cordon(owner, false)
	cordon(other, false)
	if now := s.agreed(ip, "n1", "n2"); now != owner {
		t.Errorf("%s answers for %s", now, ip)
	}
	// An interface that is down is none.
	at = p.now()
	_, err := s.Node(owner).Output("ip", "link", "set", "eth0", "down")
	must(t, err)
	s.awaitAnswer(p, s.macOf(other))
	first, _, _ = p.answered(s.macOf(other), at)
	t.Logf("eth0 of %s went down: %s answered after %s", owner, other, p.between(at, first))
	s.Eventually("the problem", func() error {
		if got := fmt.Sprint(s.Node(owner).Status().Problems); !strings.Contains(got, "announce-interface") {
			return fmt.Errorf("problems of %s are %s", owner, got)
		}
		return nil
	})
}

// TestPartition: a node that reaches neither the API server nor the other nodes, but still
// the client, stops before another one begins: no question has two answers. Nor has one
// where it comes back, but for those that were on the way.
func TestPartition(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.endpoints("web", s.pod("n1"), s.pod("n2"), s.pod("n3"))
	s.api.Put(serviceObject("web", 1))
	ip := s.held("web", 2)[0]
	owner := s.agreed(ip, "n1", "n2", "n3")
	old := s.macOf(owner)
	p := startProber(t, s.client.Namespace, ip)
	s.awaitAnswer(p, old)
	for round := range 2 {
		s.isolate(true)
		at := p.now()
		_, err := s.Node(owner).Output("ip", "link", "set", "eth1", "down")
		must(t, err)
		var to string
		s.Eventually("another node to answer", func() error {
			for _, n := range s.others(owner) {
				if _, _, any := p.answered(s.macOf(n), at); any {
					to = n
					return nil
				}
			}
			return fmt.Errorf("%d questions were asked", p.now()-at)
		})
		s.awaitAnswer(p, s.macOf(to)) // and some more
		first, _, _ := p.answered(s.macOf(to), at)
		_, last, any := p.answered(old, at)
		if any && last >= first || p.both(at) > 0 {
			t.Errorf("%s has answered question %d, %s question %d; %d questions had two answers", owner, last, to, first, p.both(at))
		}
		t.Logf("round %d: the network was cut: %s went on for %s, %s began after %s; %d questions, %d with two answers", round, owner, p.between(at, max(last, at)), to, p.between(at, first), p.now()-at, p.both(at))
		s.Eventually("the problem", func() error {
			status := s.Node(owner).Status()
			if !strings.Contains(fmt.Sprint(status.Problems), "announce-lease") {
				return fmt.Errorf("problems are %v", status.Problems)
			}
			return nil
		})
		at = p.now()
		_, err = s.Node(owner).Output("ip", "link", "set", "eth1", "up")
		must(t, err)
		s.isolate(false)
		s.awaitAnswer(p, old)
		if now := s.agreed(ip, "n1", "n2", "n3"); now != owner {
			t.Errorf("the network is back: %s answers for %s", now, ip)
		}
		s.awaitAnswer(p, old)
		t.Logf("round %d: the network came back: %d of %d questions had two answers", round, p.both(at), p.now()-at)
		if _, last, _ := p.answered(s.macOf(to), at); last > p.now()-2 {
			t.Errorf("%s still answers", to)
		}
	}
}

// become waits until the Lease of a node is valid, or is not; and then goes on with all
// others' leave, or does not.
func (s *site) become(node string, valid, together bool) {
	s.t.Helper()
	s.Eventually(fmt.Sprintf("%s: valid %t, together %t", node, valid, together), func() error {
		a, err := agent.AskAnnouncements(s.t.Context(), s.Node(node).StateDir)
		if err == nil && (a.Valid != valid || a.Together != together) {
			err = fmt.Errorf("valid %t, together %t", a.Valid, a.Together)
		}
		return err
	})
}

// reachAPI lets nodes reach the API server, or does not.
func (s *site) reachAPI(yes bool, nodes ...string) {
	s.t.Helper()
	for _, n := range nodes {
		_, err := s.Node(n).Output("ip", "link", "set", "eth1", map[bool]string{true: "up", false: "down"}[yes])
		must(s.t, err)
	}
}

// TestTogether: while no node reaches the API server and all hear each other, nothing
// changes: each question has one answer. Where one is not heard, all stop.
func TestTogether(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	all := []string{"n1", "n2", "n3"}
	s.endpoints("web", s.pod("n1"), s.pod("n2"), s.pod("n3"))
	s.api.Put(serviceObject("web", 1))
	ip := s.held("web", 2)[0]
	owner := s.agreed(ip, all...)
	p := startProber(t, s.client.Namespace, ip)
	// Who has just taken something over gives no leave: that is over soon.
	settle := func() {
		for _, n := range all {
			s.become(n, true, false)
		}
		if now := s.agreed(ip, all...); now != owner {
			t.Fatalf("%s answers for %s, and %s did", now, ip, owner)
		}
		s.awaitAnswer(p, s.macOf(owner))
		s.more(p, 500)
	}
	settle()
	at := p.now()
	s.reachAPI(false, all...)
	s.become(owner, false, true)
	lapsed := p.now()
	s.more(p, 1000)
	s.awaitAnswer(p, s.macOf(owner))
	if out, err := s.Node(owner).Flatnetd("status", "announcements"); err != nil || !strings.Contains(out, "it goes on") {
		t.Errorf("%v:\n%s", err, out)
	}
	back := p.now()
	s.reachAPI(true, all...)
	settle()
	now := p.now() - 50 // what was asked just now may not be answered yet
	if silent, two := p.unanswered(at, now), p.both(at); silent > 0 || two > 0 {
		t.Errorf("of %d questions %d had no answer, and %d two", now-at, silent, two)
	}
	t.Logf("without API server for %s, of which %s after the Lease of %s had run out: %d questions until all was as before, %d without answer, %d with two", p.between(at, back), p.between(lapsed, back), owner, now-at, p.unanswered(at, now), p.both(at))

	silence := func(what string) {
		t.Helper()
		from := p.now()
		s.more(p, 100)
		for _, n := range all {
			if _, _, any := p.answered(s.macOf(n), from); any {
				t.Errorf("%s: %s answers", what, n)
			}
		}
	}
	at = p.now()
	s.isolate(true)
	s.reachAPI(false, all...)
	for _, n := range all {
		s.become(n, false, false)
	}
	silence("nobody reaches the API server or another node")
	s.isolate(false)
	silence("they hear each other again")
	if two := p.both(at); two > 0 {
		t.Errorf("with the network cut, %d of %d questions had two answers", two, p.now()-at)
	}
	s.reachAPI(true, all...)
	settle()
	t.Logf("without API server and other nodes, and back: %d questions, %d without answer, %d with two", p.now()-at, p.unanswered(at, p.now()), p.both(at))

	at = p.now()
	s.reachAPI(false, all...)
	s.become(owner, false, true)
	dead := s.others(owner)[0]
	s.Node(dead).Kill()
	died := p.now()
	for _, n := range s.others(dead) {
		s.become(n, false, false)
	}
	silence("without API server, and one node has died")
	_, last, _ := p.answered(s.macOf(owner), at)
	t.Logf("without API server, %s went on for %s after %s had died", owner, p.between(died, max(died, last)), dead)
	if two := p.both(at); two > 0 {
		t.Errorf("a node has died, and %d of %d questions had two answers", two, p.now()-at)
	}
	all = s.others(dead)
	s.reachAPI(true, all...)
	settle()
}

// TestWithoutLease: with withoutLease: answer, addresses are answered for while nobody
// reaches the API server; and a node that alone does not reach it stops when it hears
// another one.
func TestWithoutLease(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	must(t, os.WriteFile(s.file, []byte(pools+"    withoutLease: answer\n"), 0o600))
	s.endpoints("web", s.pod("n1"), s.pod("n2"))
	s.api.Put(serviceObject("web", 1))
	ips := s.held("web", 2)
	ip := ips[0]
	owner := s.agreed(ip, "n1", "n2")
	other := s.others(owner)[0]
	p := startProber(t, s.client.Namespace, ip)
	s.awaitAnswer(p, s.macOf(owner))
	at := p.now()
	s.reachAPI(false, "n1", "n2")
	s.become("n1", false, false)
	s.become("n2", false, false)
	s.awaitAnswer(p, s.macOf(owner))
	s.unlearn()
	for _, ip := range ips {
		s.Eventually("an answer without API server", func() error { _, _, err := s.ask(ip); return err })
	}
	if _, _, any := p.answered(s.macOf(other), at); any {
		t.Errorf("%s has answered", other)
	}
	// The other one is there again, and takes over.
	s.reachAPI(true, other)
	s.awaitAnswer(p, s.macOf(other))
	from := p.now()
	s.awaitAnswer(p, s.macOf(other))
	if _, _, any := p.answered(s.macOf(owner), from); any {
		t.Errorf("%s answers for what %s has taken over", owner, other)
	}
	t.Logf("%d of %d questions had two answers", p.both(at), p.now()-at)
	s.reachAPI(true, owner)
	s.awaitAnswer(p, s.macOf(owner))
	for _, ip := range ips {
		s.agreed(ip, "n1", "n2")
		s.Eventually("an answer", func() error { _, _, err := s.ask(ip); return err })
	}
}

// isolate keeps the nodes, and nobody else, from each other.
func (s *site) isolate(yes bool) {
	s.t.Helper()
	lan := s.lan.Space()
	for i := range s.Nodes {
		_, err := lan.Output("bridge", "link", "set", "dev", fmt.Sprintf("port%d", i+1), "isolated", map[bool]string{true: "on", false: "off"}[yes])
		must(s.t, err)
	}
}

// TestGivenBack: an address follows what becomes of its Service and of the pools, and the
// events say why somebody has none.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	must(t, os.WriteFile(s.file, []byte("defaultClass: true\npools: [{name: lan, addresses: [172.30.0.100], layer2: {interfaces: [eth0]}}]\n"), 0o600))
	s.api.Put(single("a", 1))
	s.held("a", 1)
	s.api.Put(single("b", 2))
	s.Eventually("an event on b", func() error {
		for _, e := range s.api.Events() {
			if e.InvolvedObject.Name == "b" && e.Reason == "NoAddress" && e.Message == "IPv4: all addresses of pool lan are taken" {
				return nil
			}
		}
		return fmt.Errorf("events are %v", s.api.Events())
	})
	// A file that is wrong changes nothing, and says which key.
	must(t, os.WriteFile(s.file, []byte("pools: [{name: lan, addresses: [172.30.0.999]}]\n"), 0o600))
	s.Eventually("the problem", func() error {
		if got := fmt.Sprint(s.Node("n1").Status().Problems); !strings.Contains(got, `pools[0].addresses[0]: "172.30.0.999" is not an address`) {
			return fmt.Errorf("problems are %s", got)
		}
		return nil
	})
	if got := s.held("a", 1); got[0].String() != "172.30.0.100" {
		t.Errorf("a has %v", got)
	}
	// b gets the address when a no longer wants it.
	a := s.service("a").DeepCopy()
	a.Spec.Type = v1.ServiceTypeClusterIP
	s.api.Put(a)
	s.held("a", 0)
	if got := s.held("b", 1); got[0].String() != "172.30.0.100" {
		t.Errorf("b has %v", got)
	}
	// Another agent goes on with what there is when the one that gives addresses is gone.
	leader := ""
	s.Eventually("a leader", func() error {
		for _, n := range s.Nodes {
			if n.Metrics()["flatnet_loadbalancer_leader"] == 1 {
				leader = n.Name
				return nil
			}
		}
		return fmt.Errorf("there is none")
	})
	s.Node(leader).Kill()
	must(t, os.WriteFile(s.file, []byte("defaultClass: true\npools: [{name: lan, addresses: [172.30.0.101-172.30.0.102], layer2: {interfaces: [eth0]}}]\n"), 0o600))
	s.Eventually("another address for b", func() error {
		i := s.service("b").Status.LoadBalancer.Ingress
		if len(i) != 1 || i[0].IP != "172.30.0.101" {
			return fmt.Errorf("it has %v", i)
		}
		return nil
	})
	s.Eventually("the event", func() error {
		for _, e := range s.api.Events() {
			if e.InvolvedObject.Name == "b" && e.Reason == "AddressLost" && e.Message == "172.30.0.100: it is in no pool" {
				return nil
			}
		}
		return fmt.Errorf("events are %v", s.api.Events())
	})
}
