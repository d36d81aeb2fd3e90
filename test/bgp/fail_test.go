package bgp_test

import (
	"fmt"
	"os"
	"os/exec"
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
)

// flow is packets between two pods in both families.
type flow struct {
	t     *testing.T
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

// end stops it; no more packets may have been lost.
func (f *flow) end(most int) {
	f.t.Helper()
	for i, p := range f.pings {
		e, err := p.Stop(pace.Of(5 * time.Second))
		must(f.t, err)
		f.t.Logf("IPv%d: %d of %d lost", 4+2*i, e.Lost(), e.Sent)
		if e.Lost() > most {
			f.t.Errorf("IPv%d: %d of %d lost, want %d at most", 4+2*i, e.Lost(), e.Sent, most)
		}
	}
}

// knows waits until a router has a route, or has none.
func (s *site) knows(r *router, prefix string, yes bool) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%s to know %s: %v", r.name, prefix, yes), func() error {
		question := "show route " + prefix
		if !r.bird {
			question = "show bgp ipv4 unicast " + prefix
			if strings.Contains(prefix, ":") {
				question = "show bgp ipv6 unicast " + prefix
			}
		}
		text, _ := r.tryAsk(question)
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
	s.up()
	s.joined(s.n1, "bgp", 2)
	s.joined(s.n2, "bgp", 2)
	one, two := s.n1.Pod("one"), s.n2.Pod("two")
	f := s.flow(one, two)
	for _, end := range []func(){s.n1.Kill, func() { s.n1.Stop() }} {
		end()
		// All four sessions are gone before the next one begins.
		await(t, "routers to see that the sessions are gone", func() error {
			if text := s.a1.ask(t, "show protocols node4"); strings.Contains(text, "Established") {
				return fmt.Errorf("a1: %s", text)
			}
			return nil
		})
		s.knows(s.b1, "10.244.1.0/24", true)
		s.n1.StartAgain()
		s.n1.WaitReady()
		await(t, "all sessions", func() error { return s.established(s.n1, 4) })
		await(t, "the routes of the run before to be told again", func() error {
			if b, err := agent.AskBGP(t.Context(), s.n1.StateDir); err != nil || b.Kept {
				return fmt.Errorf("%v, they are kept", err)
			}
			return nil
		})
		s.joined(s.n1, "bgp", 2)
	}
	// Where a route is replaced, a packet that has looked it up may be lost: test/fabric.
	f.end(2)
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
	s.up()
	s.joined(s.n1, "bgp", 2)
	s.joined(s.n2, "bgp", 2)
	f := s.flow(s.n1.Pod("one"), s.n2.Pod("two"))
	speakers := processes(t, s.n1, "flatnet-bgp")
	if len(speakers) != 1 {
		t.Fatalf("they are %v", speakers)
	}
	must(t, syscall.Kill(speakers[0], syscall.SIGKILL))
	await(t, "the agent to see it", func() error {
		if !strings.Contains(s.n1.Log(), "flatnet-bgp has ended, starting it again") {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	await(t, "all sessions", func() error { return s.established(s.n1, 4) })
	s.joined(s.n1, "bgp", 2)
	f.end(2)
}

// A router that goes takes half of the ways along, and when both are gone pods are reached
// through the tunnel, if nodes are.
func TestRoutersGo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.up()
	s.joined(s.n1, "bgp", 2)
	s.joined(s.n2, "bgp", 2)
	one, two := s.n1.Pod("one"), s.n2.Pod("two")
	f := s.flow(one, two)
	// They stop telling of pods, and forward as before.
	for _, r := range []*router{s.a1} {
		r.filter = "export where net !~ [ 10.244.0.0/16+ ];"
		r.write(t)
		text, err := os.ReadFile(r.file("conf"))
		must(t, err)
		changed := strings.Replace(string(text), "ipv6 { import all; export where net !~ [ 10.244.0.0/16+ ]; };", "ipv6 { import all; export where net !~ [ fd00:244::/32+ ]; };", 1)
		must(t, os.WriteFile(r.file("conf"), []byte(changed), 0o644))
		r.ask(t, "configure")
	}
	s.joined(s.n1, "bgp", 1)
	for _, family := range []string{"ipv4", "ipv6"} {
		network := map[string]string{"ipv4": "10.244.0.0/16 le 32", "ipv6": "fd00:244::/32 le 128"}[family]
		ip := map[string]string{"ipv4": "ip", "ipv6": "ipv6"}[family]
		peer := map[string]string{"ipv4": "172.30.0.1", "ipv6": "fd00:30:0::1"}[family]
		cmd := exec.Command(vtysh, "--vty_socket", s.a2.directory, "-c", "configure", "-c", ip+" prefix-list pods seq 5 deny "+network,
			"-c", ip+" prefix-list pods seq 10 permit any", "-c", "router bgp 64601", "-c", "address-family "+family+" unicast", "-c", "neighbor "+peer+" prefix-list pods out")
		must(t, s.a2.Run(cmd))
	}
	s.joined(s.n1, "vxlan", 1)
	f.end(2)
	f = s.flow(one, two)
	s.a1.filter = ""
	s.a1.reload(t)
	s.joined(s.n1, "bgp", 1)
	f.end(2)
	// A router's machine dies: what went by it is lost until the hold time is over.
	for _, link := range []string{"eth0", "eth1"} {
		_, err := s.a1.Output("ip", "link", "set", link, "down")
		must(t, err)
	}
	s.joined(s.n1, "vxlan", 1)
}

// A session that comes and goes takes its ways along, and never the other's.
func TestFlapping(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.up()
	s.joined(s.n1, "bgp", 2)
	s.joined(s.n2, "bgp", 2)
	f := s.flow(s.n1.Pod("one"), s.n2.Pod("two"))
	for range 3 {
		s.a1.ask(t, "disable node4")
		s.a1.ask(t, "disable node6")
		s.joined(s.n1, "bgp", 1)
		s.a1.ask(t, "enable node4")
		s.a1.ask(t, "enable node6")
		s.joined(s.n1, "bgp", 2)
	}
	f.end(12)
	if reason := s.n1.Metrics()[`flatnet_bgp_session_changes_total{to="down"}`]; reason < 6 {
		t.Errorf("%v sessions ended, by the metrics", reason)
	}
}

// problem waits until a node has a problem of a kind with words in it.
func (s *site) problem(n *cluster.Node, kind string, words ...string) {
	s.t.Helper()
	await(s.t, "problem "+kind, func() error {
		status, err := n.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range status.Problems {
			all := p.Kind == kind
			for _, w := range words {
				all = all && strings.Contains(p.Object+": "+p.Reason, w)
			}
			if all {
				s.t.Logf("%s: %s", p.Object, p.Reason)
				return nil
			}
		}
		return fmt.Errorf("problems are %+v", status.Problems)
	})
}

// Sessions that cannot be say why, and passwords are nowhere.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const secret = "correct-horse-battery"
	right, wrong := filepath.Join(s.Directory, "right"), filepath.Join(s.Directory, "wrong")
	must(t, os.WriteFile(right, []byte(secret+"\n"), 0o600))
	must(t, os.WriteFile(wrong, []byte("wrong-"+secret), 0o600))
	s.a1.node = `password "` + secret + `";`
	s.a2.node = "password " + secret
	with := func(old, new string, all string) string {
		if !strings.Contains(all, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(all, old, new, 1)
	}
	text := with("{name: a1,", "{passwordFile: "+right+", name: a1,", usual)
	text = with("{name: a2,", "{passwordFile: "+right+", name: a2,", text)
	text = with("{name: a1v6,", "{passwordFile: "+right+", name: a1v6,", text)
	bad := with("{name: a2v6,", "{passwordFile: "+wrong+", name: a2v6,", text)
	good := with("{name: a2v6,", "{passwordFile: "+right+", name: a2v6,", text)
	bad = with("172.30.0.252, asn: 64601", "172.30.0.252, asn: 64999", bad)
	s.configure(bad)
	s.up()
	s.problem(s.n1, "bgp-session", "a2 (172.30.0.252, AS 64999)", "the peer's AS is not 64999")
	s.problem(s.n1, "bgp-session", "a2v6", "has another password")
	must(t, s.established(s.n1, 2))
	// A mistake in the file changes nothing, and names the key.
	s.configure(with("asn: 64512", "asn: 64512\nlistenPrt: 17", bad))
	s.problem(s.n1, "bgp-config", `"listenPrt"`)
	must(t, s.established(s.n1, 2))
	s.configure(with("holdTime", "holdTime", strings.Replace(bad, "{passwordFile: "+right+", name: a1,", "{holdTime: 1s, passwordFile: "+right+", name: a1,", 1)))
	s.problem(s.n1, "bgp-config", "peers[0].holdTime", "1s", "what was read before stays")
	must(t, s.established(s.n1, 2))
	s.configure(good)
	await(t, "all sessions", func() error { return s.established(s.n1, 4) })
	// Nobody is told a password.
	status, err := s.n1.Flatnetd("status", "bgp", "-o", "json")
	must(t, err)
	whole, err := s.n1.Flatnetd("status", "-o", "json")
	must(t, err)
	state, err := os.ReadFile(filepath.Join(s.n1.StateDir, "bgp.json"))
	must(t, err)
	for what, text := range map[string]string{"status bgp": status, "status": whole, "log": s.n1.Log(), "bgp.json": string(state)} {
		if strings.Contains(text, secret) {
			t.Errorf("%s has the password:\n%s", what, text)
		}
	}
}

// Default routes and networks of this node's own pods are refused, whoever tells of them.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.a1.extra = `
protocol static { ipv4; route 0.0.0.0/0 unreachable; route 10.244.1.0/24 unreachable; route 10.244.1.128/25 unreachable; route 192.0.2.0/24 unreachable; }
protocol static { ipv6; route ::/0 unreachable; route fd00:244:1::/64 unreachable; }
`
	s.up()
	s.problem(s.n1, "bgp-refused", "peer a1", "10.244.1.", "podCIDR of this node")
	s.problem(s.n1, "bgp-refused", "peer a1", "0.0.0.0/0", "default routes are not accepted")
	s.problem(s.n1, "bgp-refused", "peer a1v6", "::/0")
	for _, family := range []string{"-4", "-6"} {
		routes, err := s.n1.Output("ip", family, "route", "show", "proto", "70")
		must(t, err)
		for _, wrong := range []string{"default", "10.244.1.128/25", "192.0.2.0", "10.244.1.0/24 via", "10.244.1.0/24 src"} {
			if strings.Contains(routes, wrong) {
				t.Errorf("there is %s:\n%s", wrong, routes)
			}
		}
	}
	s.configure(usual + "  defaultRoute: true\n  - {prefix: 192.0.2.0/24}\n")
	s.problem(s.n1, "bgp-config", "line")
	s.configure(strings.Replace(usual, "accept:", "accept:\n  defaultRoute: true", 1))
	// Somebody else's default route is there: it comes first, and nothing is put beside it.
	_, err := s.n1.Output("ip", "route", "del", "default")
	must(t, err)
	await(t, "the default route", func() error {
		routes, err := s.n1.Output("ip", "route", "show", "default", "proto", "70")
		if err != nil || !strings.Contains(routes, "via 172.30.0.251 dev eth0") {
			return fmt.Errorf("%v: %s", err, routes)
		}
		return nil
	})
}

// 10,000 routes are learned, and go. With a lower maximum the rest is a problem.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var b strings.Builder
	fmt.Fprintln(&b, "protocol static many { ipv4;")
	const many = 10_000
	for i := range many {
		fmt.Fprintf(&b, "route 100.%d.%d.0/24 unreachable;\n", 64+i/256, i%256)
	}
	fmt.Fprintln(&b, "}")
	s.a1.extra = b.String()
	s.configure(strings.Replace(usual, "  prefixes:\n", "  maximumRoutes: 20000\n  prefixes:\n  - {prefix: 100.64.0.0/10, minLength: 24}\n", 1))
	s.up()
	count := func(n int) {
		await(t, fmt.Sprintf("%d routes", n), func() error {
			routes, err := s.n1.Output("ip", "route", "show", "proto", "70", "root", "100.64.0.0/10")
			if have := strings.Count(routes, "\n"); err != nil || have != n {
				return fmt.Errorf("%v, there are %d", err, have)
			}
			return nil
		})
	}
	count(many)
	s.a1.ask(t, "disable many")
	count(0)
	s.a1.ask(t, "enable many")
	count(many)
	s.configure(strings.Replace(usual, "  prefixes:\n", "  maximumRoutes: 500\n  prefixes:\n  - {prefix: 100.64.0.0/10, minLength: 24}\n", 1))
	s.problem(s.n1, "bgp-maximum", "500 routes are accepted")
	// A podCIDR is not crowded out.
	s.joined(s.n1, "bgp", 2)
}

// The cleanup takes back what routers were told.
func TestCleanup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.up()
	s.joined(s.n2, "bgp", 2)
	for _, r := range []*router{s.a1, s.a2} {
		s.knows(r, "10.244.1.0/24", true)
	}
	s.n1.Stop()
	s.knows(s.a1, "10.244.1.0/24", true)
	out, err := s.n1.Flatnetd("cleanup")
	must(t, err)
	t.Log(out)
	if !strings.Contains(out, "announcements to a1") {
		t.Error("it does not say so")
	}
	for _, r := range s.routers() {
		s.knows(r, "10.244.1.0/24", false)
		s.knows(r, "fd00:244:1::/64", false)
	}
	if routes, _ := s.n1.Output("ip", "route", "show", "proto", "70"); routes != "" {
		t.Errorf("routes are left:\n%s", routes)
	}
}
