package bgp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// flow is packets between two pods in both families.
type flow struct {
	t     testing.TB
	pings []*netlab.Ping
}

func (s *site) flow(one, two *cluster.Pod) *flow {
	s.t.Helper()
	f := &flow{t: s.t}
	for _, ipv6 := range []bool{false, true} {
		s.reaches(one.Namespace, one.Address(ipv6), two.Address(ipv6), two.Namespace)
		p, err := one.Namespace.Ping(two.Address(ipv6), pace.Of(2*time.Millisecond))
		must(s.t, err)
		f.pings = append(f.pings, p)
	}
	return f
}

// tenth has [flow.end] allow that one of ten packets is lost, where routers themselves have
// no way for a moment.
const tenth = -1

// end stops it; no more packets may have been lost.
func (f *flow) end(most int) {
	f.t.Helper()
	for i, p := range f.pings {
		e, err := p.Stop(pace.Of(5 * time.Second))
		must(f.t, err)
		f.t.Logf("IPv%d: %d of %d lost", 4+2*i, e.Lost(), e.Sent)
		allowed := most
		if most == tenth {
			allowed = e.Sent / 10
		}
		if e.Lost() > allowed {
			f.t.Errorf("IPv%d: %d of %d lost, want %d at most", 4+2*i, e.Lost(), e.Sent, allowed)
		}
	}
}

// knows waits until a router has a route, or has none.
func (s *site) knows(r *racks.Router, prefix string, yes bool) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%s to know %s: %v", r.Name, prefix, yes), func() error {
		question := "show route " + prefix
		if !r.IsBIRD {
			question = "show bgp ipv4 unicast " + prefix
			if strings.Contains(prefix, ":") {
				question = "show bgp ipv6 unicast " + prefix
			}
		}
		text, _ := r.Ask(question)
		has := strings.Contains(text, "unicast [") || strings.Contains(text, "valid, ")
		if has != yes {
			return fmt.Errorf("it says: %s", text)
		}
		return nil
	})
}

// An agent that is killed, ended or updated loses no packet: routers keep its routes, and
// the kernel keeps theirs.
func TestAgentRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one, two := s.upWithPods()
	f := s.flow(one, two)
	tunnelled := strings.Count(s.N1.Log(), "10.244.2.0/24 vxlan")
	for _, end := range []func(){s.N1.Kill, func() { s.N1.Stop() }} {
		end()
		// All four sessions are gone before the next one begins.
		await(t, "routers to see that the sessions are gone", func() error {
			if text := ask(t, s.A1, "show protocols node4"); strings.Contains(text, "Established") {
				return fmt.Errorf("a1: %s", text)
			}
			return nil
		})
		s.knows(s.B1, "10.244.1.0/24", true)
		s.N1.StartAgain()
		s.N1.WaitReady()
		await(t, "all sessions", func() error { return s.established(s.N1, 4) })
		await(t, "the routes of the run before to be told again", func() error {
			if b, err := agent.AskBGP(t.Context(), s.N1.StateDir); err != nil || b.Kept {
				return fmt.Errorf("%v, they are kept", err)
			}
			return nil
		})
		s.joined(s.N1, "bgp", 2)
	}
	// Where a route is replaced, a packet that has looked it up may be lost: test/fabric.
	f.end(2)
	if now := strings.Count(s.N1.Log(), "10.244.2.0/24 vxlan"); now != tunnelled {
		t.Errorf("the tunnel was used %d times meanwhile", now-tunnelled)
	}
}

func (s *site) established(n *cluster.Node, many int) error {
	b, err := agent.AskBGP(s.t.Context(), n.StateDir)
	if err != nil {
		return err
	}
	have := 0
	for _, p := range b.Peers {
		if p.State == "established" {
			have++
		}
	}
	if have != many {
		return fmt.Errorf("%d of %d sessions are established: %+v", have, many, b.Peers)
	}
	return nil
}

// processes are those of a program on a node.
func processes(t *testing.T, n *cluster.Node, program string) (pids []int) {
	t.Helper()
	own, err := os.Stat(n.Path)
	must(t, err)
	entries, err := filepath.Glob("/proc/[0-9]*/ns/net")
	must(t, err)
	for _, entry := range entries {
		stat, err := os.Stat(entry)
		if err != nil || !os.SameFile(stat, own) {
			continue // of another node, or ended
		}
		process := filepath.Dir(filepath.Dir(entry))
		if name, _ := os.ReadFile(filepath.Join(process, "comm")); strings.TrimSpace(string(name)) == program {
			pid, err := strconv.Atoi(filepath.Base(process))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// flatnet-bgp is killed: nothing is lost, and it is started again.
func TestSpeakerIsKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := s.flow(s.upWithPods())
	speakers := processes(t, s.N1, "flatnet-bgp")
	if len(speakers) != 1 {
		t.Fatalf("they are %v", speakers)
	}
	must(t, syscall.Kill(speakers[0], syscall.SIGKILL))
	await(t, "the agent to see it", func() error {
		if !strings.Contains(s.N1.Log(), "flatnet-bgp has ended, starting it again") {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	await(t, "all sessions", func() error { return s.established(s.N1, 4) })
	s.joined(s.N1, "bgp", 2)
	f.end(2)
}

// A router that goes takes half of the ways along, and when both are gone pods are reached
// through the tunnel, if nodes are.
func TestRoutersGo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one, two := s.upWithPods()
	f := s.flow(one, two)
	// They stop telling of pods, and forward as before.
	for _, r := range []*racks.Router{s.A1} {
		r.Filter = "export where net !~ [ 10.244.0.0/16+ ];"
		must(t, r.Write())
		text, err := os.ReadFile(r.File("conf"))
		must(t, err)
		changed := strings.Replace(string(text), "ipv6 { import all; export where net !~ [ 10.244.0.0/16+ ]; };", "ipv6 { import all; export where net !~ [ fd00:244::/32+ ]; };", 1)
		must(t, os.WriteFile(r.File("conf"), []byte(changed), 0o644))
		ask(t, r, "configure")
	}
	s.joined(s.N1, "bgp", 1)
	for _, family := range []string{"ipv4", "ipv6"} {
		network := map[string]string{"ipv4": "10.244.0.0/16 le 32", "ipv6": "fd00:244::/32 le 128"}[family]
		ip := map[string]string{"ipv4": "ip", "ipv6": "ipv6"}[family]
		peer := map[string]string{"ipv4": "172.30.0.1", "ipv6": "fd00:30:0::1"}[family]
		text, err := s.A2.Ask("configure", ip+" prefix-list pods seq 5 deny "+network, ip+" prefix-list pods seq 10 permit any",
			"router bgp 64601", "address-family "+family+" unicast", "neighbor "+peer+" prefix-list pods out")
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	s.joined(s.N1, "vxlan", 1)
	f.end(2)
	f = s.flow(one, two)
	s.A1.Filter = ""
	reload(t, s.A1)
	s.joined(s.N1, "bgp", 1)
	f.end(2)
	// A router's machine dies: what went by it is lost until the hold time is over.
	for _, link := range []string{"eth0", "eth1"} {
		_, err := s.A1.Output("ip", "link", "set", link, "down")
		must(t, err)
	}
	s.joined(s.N1, "vxlan", 1)
}

// A session that comes and goes takes its ways along, and never the other's.
func TestFlapping(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := s.flow(s.upWithPods())
	for range 3 {
		ask(t, s.A1, "disable node4")
		ask(t, s.A1, "disable node6")
		s.joined(s.N1, "bgp", 1)
		ask(t, s.A1, "enable node4")
		ask(t, s.A1, "enable node6")
		s.joined(s.N1, "bgp", 2)
	}
	f.end(tenth)
	if reason := s.N1.Metrics()[`flatnet_bgp_session_changes_total{to="down"}`]; reason < 6 {
		t.Errorf("%v sessions ended, by the metrics", reason)
	}
}
