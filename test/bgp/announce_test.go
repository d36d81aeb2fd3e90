package bgp_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/racks"
)

// hears waits until a router has a network of its node's with these words, and without
// those.
func (s *site) hears(r *racks.Router, prefix string, with, without []string) {
	s.t.Helper()
	family := "4"
	if strings.Contains(prefix, ":") {
		family = "6"
	}
	question := "show bgp ipv" + family + " unicast " + prefix
	if r.IsBIRD {
		question = "show route protocol node" + family + " all " + prefix
	}
	await(s.t, fmt.Sprintf("%s to hear of %s with %q, without %q", r.Name, prefix, with, without), func() error {
		text, err := r.Ask(question)
		for _, word := range with {
			if !strings.Contains(text, word) {
				return fmt.Errorf("there is no %q (%v): %s", word, err, text)
			}
		}
		for _, word := range without {
			if strings.Contains(text, word) {
				return fmt.Errorf("there is %q: %s", word, text)
			}
		}
		return nil
	})
}

// A community and a MED are told to one of two routers, and then to the other one, while no
// session ends and no packet is lost.
func TestAnnouncementsByPeer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	marked := func(peer string) string {
		return strings.Replace(racks.Usual, "name: "+peer+", ", "name: "+peer+", announce: {communities: [\"64512:70\", \"64512:1:2\"], med: 33}, ", 1)
	}
	s.configure(marked("a1"))
	f := s.flow(s.upWithPods())
	bird, frr := []string{"(64512,70)", "(64512, 1, 2)", "BGP.med: 33"}, []string{"64512:70", "64512:1:2", "metric 33"}
	s.hears(s.A1, "10.244.1.0/24", bird, nil)
	s.hears(s.A2, "10.244.1.0/24", []string{"valid"}, frr)
	s.hears(s.A1, "fd00:244:1::/64", []string{"unicast ["}, bird)
	text, err := s.N1.Flatnetd("status", "bgp")
	must(t, err)
	if !strings.Contains(text, "\nannounced: 10.244.1.0/24 fd00:244:1::/64\nto a1: 10.244.1.0/24 fd00:244:1::/64\n") {
		t.Errorf("the status does not say who is told what:\n%s", text)
	}
	s.configure(marked("a2"))
	s.hears(s.A1, "10.244.1.0/24", []string{"unicast ["}, bird)
	s.hears(s.A2, "10.244.1.0/24", frr, nil)
	// Nothing at all to one of them.
	s.configure(strings.Replace(racks.Usual, "name: a1, ", "name: a1, announce: {podCIDRs: false}, ", 1))
	s.hears(s.A1, "10.244.1.0/24", nil, []string{"unicast [node4"})
	s.hears(s.A2, "10.244.1.0/24", []string{"valid"}, frr)
	f.end(2)
	if ended := s.N1.Metrics()[`flatnet_bgp_session_changes_total{to="down"}`]; ended != 0 {
		t.Errorf("%v sessions have ended", ended)
	}
}

// Of Services those are announced that have the labels, and the class, that are meant.
func TestChosenServices(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server, kubeconfig := s.api()
	s.configure(racks.Usual + "announce: {services: [{addresses: loadBalancer, selector: expose=yes}, {addresses: cluster, loadBalancerClass: example.com/routers}]}\n")
	one, _ := s.upWithPods("--kubeconfig", kubeconfig)
	const other = "198.51.100.2"
	exposed, hidden := web(0, balancer), web(1, other)
	exposed.Labels = map[string]string{"expose": "yes"}
	class := "example.com/routers"
	hidden.Spec.LoadBalancerClass = &class
	server.Put(endpoints(0, one, 80, true))
	server.Put(endpoints(1, one, 80, true))
	server.Put(exposed)
	server.Put(hidden)
	has := func(prefix string, yes bool) { s.knows(s.A1, prefix, yes) }
	has(balancer+"/32", true)
	has(hidden.Spec.ClusterIP+"/32", true)
	has(other+"/32", false)
	has(exposed.Spec.ClusterIP+"/32", false)
	// Labels change.
	exposed, hidden = exposed.DeepCopy(), hidden.DeepCopy()
	exposed.Labels, hidden.Labels = nil, map[string]string{"expose": "yes"}
	server.Put(exposed)
	server.Put(hidden)
	has(other+"/32", true)
	has(balancer+"/32", false)
}

// notStale waits until FRR has a network that it was told in the session that it has now.
func (s *site) notStale(r *racks.Router, prefix string) {
	s.t.Helper()
	s.hears(r, prefix, []string{"valid"}, []string{"stale"})
}

// While the API server is away, flatnetd is restarted, and routers are told what was
// announced before: nothing is withdrawn when the restart time is over, and what they have
// forgotten meanwhile they learn again. So it is with a configuration that has a mistake.
func TestRestartWithoutAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	server, kubeconfig := s.api()
	// Long enough for sessions to be back on a busy machine, and to wait for its end below.
	config := strings.Replace(racks.Usual, "restartTime: 60s", "restartTime: 30s", 1) + "announce: {services: [loadBalancer]}\n"
	s.configure(config)
	server.Put(nodeOf(s.N1, "a"))
	server.Put(nodeOf(s.N2, "b"))
	s.up("--nodes-file=", "--kubeconfig", kubeconfig)
	for _, n := range s.Nodes {
		s.joined(n, "bgp", 2)
	}
	one, two := s.N1.Pod("one"), s.N2.Pod("two")
	server.Put(web(0, balancer))
	server.Put(endpoints(0, one, 80, true))
	all := []string{"10.244.1.0/24", "fd00:244:1::/64", balancer + "/32"}
	for _, prefix := range all {
		s.knows(s.A1, prefix, true)
		s.knows(s.A2, prefix, true)
	}
	f := s.flow(one, two)
	server.Stop()
	resumed := func() {
		await(t, "all sessions", func() error { return s.established(s.N1, 4) })
		for _, prefix := range all {
			s.notStale(s.A2, prefix)
			s.knows(s.A1, prefix, true)
		}
		if b := s.bgp(s.N1); !b.Resumed || len(b.Announced) != len(all) {
			t.Errorf("the status is %+v", b)
		}
	}
	s.N1.Kill()
	s.N1.StartAgain()
	resumed()
	f.end(2)
	// Longer than the restart time.
	s.N1.Kill()
	for _, prefix := range all {
		s.knows(s.A1, prefix, false)
		s.knows(s.A2, prefix, false)
	}
	s.configure(strings.Replace(config, "asn:", "asm:", 1))
	s.N1.StartAgain()
	resumed()
	s.problem(s.N1, "bgp-config", `"asm"`, "what was read before stays")
	s.reaches(one.Namespace, one.Address(false), two.Address(false), two.Namespace)
	// The API server is back, without the endpoint: that is believed.
	back, _ := s.api()
	back.Put(nodeOf(s.N1, "a"))
	back.Put(nodeOf(s.N2, "b"))
	back.Put(web(0, balancer))
	s.knows(s.A1, balancer+"/32", false)
	s.knows(s.A1, "10.244.1.0/24", true)
	s.joined(s.N1, "bgp", 2)
}
