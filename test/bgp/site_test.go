package bgp_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// site is racks in a test.
type site struct {
	*racks.Racks
	t testing.TB
}

// newSite makes all but what runs.
func newSite(t testing.TB) *site {
	t.Helper()
	all, err := racks.New(cluster.Start(t))
	must(t, err)
	s := &site{Racks: all, t: t}
	t.Cleanup(func() {
		for _, r := range s.Routers() {
			if t.Failed() {
				log, _ := os.ReadFile(r.File("log"))
				t.Logf("log of %s:\n%s", r.Name, log)
				for _, q := range map[bool][]string{true: {"show protocols", "show route"}, false: {"show bgp summary", "show bgp ipv4", "show bgp ipv6"}}[r.IsBIRD] {
					text, _ := r.Ask(q)
					t.Logf("%s: %s:\n%s", r.Name, q, text)
				}
			}
			r.Kill()
		}
	})
	return s
}

func (s *site) configure(text string) {
	s.t.Helper()
	must(s.t, s.Racks.Configure(text))
}

// ask returns what a router says of itself.
func ask(t testing.TB, r *racks.Router, question string) string {
	t.Helper()
	text, err := r.Ask(question)
	if err != nil {
		t.Logf("asking %s %q: %v: %s", r.Name, question, err, text)
	}
	return text
}

// reload has a router with BIRD read its configuration, as it is by now.
func reload(t testing.TB, r *racks.Router) {
	t.Helper()
	must(t, r.Write())
	if out := ask(t, r, "configure"); !strings.Contains(out, "Reconfigured") && !strings.Contains(out, "Reconfiguration in progress") {
		t.Fatalf("%s does not take its configuration: %s", r.Name, out)
	}
}

// up starts everything, and waits until agents are ready.
func (s *site) up(flags ...string) {
	s.t.Helper()
	for _, r := range s.Routers() {
		must(s.t, r.Start())
	}
	if _, err := os.Stat(s.Config); err != nil {
		s.configure(racks.Usual)
	}
	s.WriteNodes()
	for _, n := range s.Nodes {
		n.Start(append([]string{"--bgp-config", s.Config}, flags...)...)
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
	return s.N1.Pod("one"), s.N2.Pod("two")
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
