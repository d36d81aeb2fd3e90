package bgp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/racks"
)

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
	s.A1.Session = `password "` + secret + `";`
	s.A2.Session = "password " + secret
	with := func(old, new string, all string) string {
		if !strings.Contains(all, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(all, old, new, 1)
	}
	text := with("{name: a1,", "{passwordFile: "+right+", name: a1,", racks.Usual)
	text = with("{name: a2,", "{passwordFile: "+right+", name: a2,", text)
	text = with("{name: a1v6,", "{passwordFile: "+right+", name: a1v6,", text)
	bad := with("{name: a2v6,", "{passwordFile: "+wrong+", name: a2v6,", text)
	good := with("{name: a2v6,", "{passwordFile: "+right+", name: a2v6,", text)
	bad = with("172.30.0.252, asn: 64601", "172.30.0.252, asn: 64999", bad)
	s.configure(bad)
	s.up()
	s.problem(s.N1, "bgp-session", "a2 (172.30.0.252, AS 64999)", "the peer's AS is not 64999")
	s.problem(s.N1, "bgp-session", "a2v6", "has another password")
	must(t, s.established(s.N1, 2))
	// A mistake in the file changes nothing, and names the key.
	s.configure(with("asn: 64512", "asn: 64512\nlistenPrt: 17", bad))
	s.problem(s.N1, "bgp-config", `"listenPrt"`)
	must(t, s.established(s.N1, 2))
	s.configure(with("holdTime", "holdTime", strings.Replace(bad, "{passwordFile: "+right+", name: a1,", "{holdTime: 1s, passwordFile: "+right+", name: a1,", 1)))
	s.problem(s.N1, "bgp-config", "peers[0].holdTime", "1s", "what was read before stays")
	must(t, s.established(s.N1, 2))
	s.configure(good)
	await(t, "all sessions", func() error { return s.established(s.N1, 4) })
	// Nobody is told a password.
	status, err := s.N1.Flatnetd("status", "bgp", "-o", "json")
	must(t, err)
	whole, err := s.N1.Flatnetd("status", "-o", "json")
	must(t, err)
	state, err := os.ReadFile(filepath.Join(s.N1.StateDir, "bgp.json"))
	must(t, err)
	for what, text := range map[string]string{"status bgp": status, "status": whole, "log": s.N1.Log(), "bgp.json": string(state)} {
		if strings.Contains(text, secret) {
			t.Errorf("%s has the password:\n%s", what, text)
		}
	}
}

// Default routes and networks of this node's own pods are refused, whoever tells of them.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.A1.Extra = `
protocol static { ipv4; route 0.0.0.0/0 unreachable; route 10.244.1.0/24 unreachable; route 10.244.1.128/25 unreachable; route 192.0.2.0/24 unreachable; }
protocol static { ipv6; route ::/0 unreachable; route fd00:244:1::/64 unreachable; }
`
	s.up()
	s.problem(s.N1, "bgp-refused", "peer a1", "10.244.1.", "podCIDR of this node")
	s.problem(s.N1, "bgp-refused", "peer a1", "0.0.0.0/0", "default routes are not accepted")
	s.problem(s.N1, "bgp-refused", "peer a1v6", "::/0")
	for _, family := range []string{"-4", "-6"} {
		routes, err := s.N1.Output("ip", family, "route", "show", "proto", "70")
		must(t, err)
		for _, wrong := range []string{"default", "10.244.1.128/25", "192.0.2.0", "10.244.1.0/24 via", "10.244.1.0/24 src"} {
			if strings.Contains(routes, wrong) {
				t.Errorf("there is %s:\n%s", wrong, routes)
			}
		}
	}
	s.configure(racks.Usual + "  defaultRoute: true\n  - {prefix: 192.0.2.0/24}\n")
	s.problem(s.N1, "bgp-config", "line")
	s.configure(strings.Replace(racks.Usual, "accept:", "accept:\n  defaultRoute: true", 1))
	// Somebody else's default route is there: it comes first, and nothing is put beside it.
	_, err := s.N1.Output("ip", "route", "del", "default")
	must(t, err)
	await(t, "the default route", func() error {
		routes, err := s.N1.Output("ip", "route", "show", "default", "proto", "70")
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
	s.A1.Extra = b.String()
	s.configure(strings.Replace(racks.Usual, "  prefixes:\n", "  maximumRoutes: 20000\n  prefixes:\n  - {prefix: 100.64.0.0/10, minLength: 24}\n", 1))
	s.up()
	count := func(n int) {
		await(t, fmt.Sprintf("%d routes", n), func() error {
			routes, err := s.N1.Output("ip", "route", "show", "proto", "70", "root", "100.64.0.0/10")
			if have := strings.Count(routes, "\n"); err != nil || have != n {
				return fmt.Errorf("%v, there are %d", err, have)
			}
			return nil
		})
	}
	count(many)
	ask(t, s.A1, "disable many")
	count(0)
	ask(t, s.A1, "enable many")
	count(many)
	s.configure(strings.Replace(racks.Usual, "  prefixes:\n", "  maximumRoutes: 500\n  prefixes:\n  - {prefix: 100.64.0.0/10, minLength: 24}\n", 1))
	s.problem(s.N1, "bgp-maximum", "500 routes are accepted")
	// A podCIDR is not crowded out.
	s.joined(s.N1, "bgp", 2)
}

// The cleanup takes back what routers were told.
func TestCleanup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.up()
	s.joined(s.N2, "bgp", 2)
	for _, r := range []*racks.Router{s.A1, s.A2} {
		s.knows(r, "10.244.1.0/24", true)
	}
	s.N1.Stop()
	s.knows(s.A1, "10.244.1.0/24", true)
	out, err := s.N1.Flatnetd("cleanup")
	must(t, err)
	t.Log(out)
	if !strings.Contains(out, "announcements to a1") {
		t.Error("it does not say so")
	}
	for _, r := range s.Routers() {
		s.knows(r, "10.244.1.0/24", false)
		s.knows(r, "fd00:244:1::/64", false)
	}
	if routes, _ := s.N1.Output("ip", "route", "show", "proto", "70"); routes != "" {
		t.Errorf("routes are left:\n%s", routes)
	}
}
