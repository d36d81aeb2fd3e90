package host

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// router is a node between pods and the world, with real neighbours.
type router struct {
	*netlab.Node
	pod, world *netlab.Node
	echoed     map[string]netip.AddrPort // "pod 4", "world 6", …
}

func newRouter(t *testing.T) *router {
	t.Helper()
	lab := netlab.Start(t)
	inside, outside := lab.Segment("inside"), lab.Segment("outside")
	r := &router{
		Node:  lab.Router("node", inside.Port("10.244.1.1/24", "fd00:244:1::1/64"), outside.Port("192.0.2.1/24", "2001:db8::1/64")),
		pod:   lab.Node("pod", inside.Port("10.244.1.2/24", "fd00:244:1::2/64")),
		world: lab.Node("world", outside.Port("192.0.2.2/24", "2001:db8::2/64")),
	}
	r.echoed = map[string]netip.AddrPort{}
	for name, n := range map[string]*netlab.Node{"pod": r.pod, "world": r.world} {
		gateways := []string{"10.244.1.1", "fd00:244:1::1"}
		addresses := []string{"10.244.1.2", "fd00:244:1::2"}
		if name == "world" {
			gateways = []string{"192.0.2.1", "2001:db8::1"}
			addresses = []string{"192.0.2.2", "2001:db8::2"}
		}
		for i, family := range []string{"4", "6"} {
			if err := n.AddRoute("default", gateways[i]); err != nil {
				t.Fatal(err)
			}
			at, stop, err := n.Echo(netip.AddrPortFrom(netip.MustParseAddr(addresses[i]), 0))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
			r.echoed[name+" "+family] = at
		}
	}
	return r
}

// wantTraffic asks in both directions. Each is a connection of its own.
func (r *router) wantTraffic(t *testing.T, family string, want bool) {
	t.Helper()
	timeout := 5 * time.Second
	if !want {
		// Nothing answers; only somebody slow could be mistaken for that, and a
		// test that finds too little dropped fails in the other call.
		timeout = 100 * time.Millisecond
	}
	for _, way := range []struct {
		from *netlab.Node
		to   string
	}{{r.pod, "world"}, {r.world, "pod"}} {
		_, _, err := way.from.Ask(netip.Addr{}, r.echoed[way.to+" "+family], timeout)
		if (err == nil) != want {
			t.Errorf("IPv%s to %s: %v, passing wanted: %v", family, way.to, err, want)
		}
	}
}

func (r *router) run(t *testing.T, program string, arg ...string) string {
	t.Helper()
	out, err := r.Output(program, arg...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *router) needs() Needs {
	return Needs{IPv4: true, IPv6: true, Underlay: []string{"eth1"}, OwnPodCIDRs: prefixes("10.244.1.0/24", "fd00:244:1::/64")}
}

// dockerRules are what docker makes of FORWARD, without those that need a docker0.
var dockerRules = []string{
	"-P FORWARD DROP", "-N DOCKER", "-N DOCKER-USER", "-N DOCKER-ISOLATION-STAGE-1",
	"-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
	"-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	"-A FORWARD -o docker0 -j DOCKER", "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
	"-A DOCKER-ISOLATION-STAGE-1 -j RETURN", "-A DOCKER-USER -j RETURN",
}

// saved is what a variant's -save prints, without what changes by itself.
func (r *router) saved(t *testing.T, program string) string {
	t.Helper()
	text := r.run(t, program+"-save")
	text = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`).ReplaceAllString(text, "")
	return text
}

// withoutMarked leaves flatnet's rules out.
func withoutMarked(text string) string {
	return regexp.MustCompile(`(?m)^.*"flatnet: pods".*\n`).ReplaceAllString(text, "")
}

// skipWithout skips where a variant is not installed, or not in the kernel.
func (r *router) skipWithout(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (Debian: apt-get install iptables)", program)
	}
	if _, err := r.Output(program, "-S", "FORWARD"); err != nil {
		t.Skipf("this kernel does not work with %s: %v", program, err)
	}
}

// eachVariant runs a test on a router for each program that keeps a FORWARD chain.
func eachVariant(t *testing.T, test func(t *testing.T, r *router, v variant)) {
	for _, v := range variants {
		t.Run(v.program, func(t *testing.T) {
			r := newRouter(t)
			r.skipWithout(t, v.program)
			test(t, r, v)
		})
	}
}

func TestForwardPolicy(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *router, v variant) {
		family, cidr, other := "4", "10.244.1.0/24", "10.244.77.0/24"
		if v.ipv6 {
			family, cidr, other = "6", "fd00:244:1::/64", "fd00:244:77::/64"
		}
		r.wantTraffic(t, family, true)
		for _, rule := range dockerRules {
			r.run(t, v.program, strings.Fields(rule)...)
		}
		r.wantTraffic(t, family, false)
		before := r.saved(t, v.program)

		k := &Keeper{}
		apply := func(n Needs) (found []Finding) {
			if err := r.Do(func() error { found = k.Apply(context.Background(), n); return nil }); err != nil {
				t.Fatal(err)
			}
			return found
		}
		object := "chain FORWARD of " + v.program
		wantText(t, "first", text(apply(r.needs())), fmt.Sprintf(
			"%s: policy DROP, 2 of 2 rules missing, 0 outdated, wanted accept for %s, marked %q, repaired\n", object, cidr, ruleComment))
		r.wantTraffic(t, family, true)
		after := r.saved(t, v.program)
		wantText(t, "rules of others", withoutMarked(after), before)
		if strings.Count(after, ruleComment) != 2 {
			t.Errorf("rules after:\n%s", after)
		}
		r.run(t, v.program, "-S") // the program can still read its table

		if again := apply(r.needs()); len(again) > 0 {
			t.Errorf("applied again:\n%s", text(again))
		}
		wantText(t, "applied again", r.saved(t, v.program), after)

		// Somebody removes one of ours.
		r.run(t, v.program, "-D", "FORWARD", "-s", cidr, "-m", "comment", "--comment", ruleComment, "-j", "ACCEPT")
		wantText(t, "one removed", text(apply(r.needs())), fmt.Sprintf(
			"%s: policy DROP, 1 of 2 rules missing, 0 outdated, wanted accept for %s, marked %q, repaired\n", object, cidr, ruleComment))
		r.wantTraffic(t, family, true)

		// The node's podCIDR changes to one that the pod here is not in.
		changed := r.needs()
		changed.OwnPodCIDRs = prefixes("10.244.77.0/24", "fd00:244:77::/64")
		wantText(t, "another podCIDR", text(apply(changed)), fmt.Sprintf(
			"%s: policy DROP, 2 of 2 rules missing, 2 outdated, wanted accept for %s, marked %q, repaired\n", object, other, ruleComment))
		if now := r.saved(t, v.program); strings.Contains(now, cidr) || strings.Count(now, other) != 2 {
			t.Errorf("rules for another podCIDR:\n%s", now)
		}
		r.wantTraffic(t, family, false)
		apply(r.needs())
		r.wantTraffic(t, family, true)

		for range 2 { // there is nothing to remove the second time
			if err := r.Do(func() error { return k.Remove(context.Background()) }); err != nil {
				t.Fatal(err)
			}
			wantText(t, "removed", r.saved(t, v.program), before)
		}
		r.wantTraffic(t, family, false)
	})
}

// TestForwardOfServices: what comes to a Service and goes on to a pod of another node
// passes, where flatnetd balances Services.
func TestForwardOfServices(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *router, v variant) {
		family, nft, at := "4", "ip", "192.0.2.1"
		if v.ipv6 {
			family, nft, at = "6", "ip6", "2001:db8::1"
		}
		if _, err := r.Output("nft", fmt.Sprintf("add table %s service; add chain %s service prerouting { type nat hook prerouting priority dstnat; }; "+
			"add rule %s service prerouting %s daddr %s udp dport 30080 dnat to %s", nft, nft, nft, nft, at, r.echoed["pod "+family])); err != nil {
			t.Fatal(err)
		}
		r.run(t, v.program, "-P", "FORWARD", "DROP")
		// The pod is another node's: nothing is accepted for its address.
		needs := r.needs()
		needs.OwnPodCIDRs = prefixes("10.244.77.0/24", "fd00:244:77::/64")
		for _, on := range []bool{false, true, false} {
			needs.Services = on
			if err := r.Do(func() error { (&Keeper{}).applyForward(context.Background(), needs); return nil }); err != nil {
				t.Fatal(err)
			}
			timeout := 5 * time.Second
			if !on {
				timeout = 100 * time.Millisecond
			}
			_, _, err := r.world.Ask(netip.Addr{}, netip.MustParseAddrPort(fmt.Sprintf(map[bool]string{true: "[%s]:30080", false: "%s:30080"}[v.ipv6], at)), timeout)
			if (err == nil) != on {
				t.Errorf("with Services %t: %v", on, err)
			}
			r.wantTraffic(t, family, false) // what was not translated is still the policy's
		}
	})
}

// TestRuleOfOthersStays: who drops by a rule means it, whoever accepts after it.
func TestRuleOfOthersStays(t *testing.T) {
	r := newRouter(t)
	r.skipWithout(t, "iptables-nft")
	r.run(t, "iptables-nft", "-P", "FORWARD", "DROP")
	r.run(t, "iptables-nft", "-A", "FORWARD", "-s", "10.244.1.2/32", "-d", "192.0.2.2/32", "-j", "DROP")
	needs := r.needs()
	needs.IPv6 = false
	if err := r.Do(func() error { (&Keeper{}).Apply(context.Background(), needs); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.pod.Ask(netip.Addr{}, r.echoed["world 4"], 100*time.Millisecond); err == nil {
		t.Error("a packet passes that a rule of somebody else drops")
	}
	// A rule that drops everything leaves nothing to accept, and is reported.
	r.run(t, "iptables-nft", "-I", "FORWARD", "-j", "DROP")
	if err := r.Do(func() error {
		found := (&Keeper{}).Apply(context.Background(), needs)
		wantText(t, "drop of everything", text(found), "chain FORWARD of iptables-nft: policy DROP, 0 of 2 rules missing, 0 outdated, "+
			"wanted accept for 10.244.1.0/24, marked \"flatnet: pods\", "+
			"PROBLEM the rule `-A FORWARD -j DROP` comes first and drops what pods send and receive\n")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNothingExecuted: without a policy that drops, no program is asked.
func TestNothingExecuted(t *testing.T) {
	r := newRouter(t)
	r.skipWithout(t, "iptables-nft")
	r.run(t, "iptables-nft", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "ACCEPT") // a chain, and no drop
	if err := r.Do(func() error {
		k := &Keeper{Run: func(_ context.Context, program string, arg ...string) (string, error) {
			t.Errorf("executed: %s", shell(program, arg))
			return "", nil
		}}
		needs := r.needs()
		k.Apply(context.Background(), needs)
		wantWell(t, k, needs)
		// Pods of the other family are none of this chain's.
		r.runHere(t, "iptables-nft", "-P", "FORWARD", "DROP")
		needs.IPv4 = false
		k.Apply(context.Background(), needs)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// runHere runs a program on the calling thread, which is in the node already.
func (r *router) runHere(t *testing.T, program string, arg ...string) {
	t.Helper()
	if _, err := execute(context.Background(), program, arg...); err != nil {
		t.Fatal(err)
	}
}

// TestProgramMissing: the image of flatnetd has no iptables, and the hint has the
// commands that then do it by hand.
func TestProgramMissing(t *testing.T) {
	r := newRouter(t)
	r.skipWithout(t, "iptables-nft")
	r.run(t, "iptables-nft", "-P", "FORWARD", "DROP")
	k := &Keeper{Run: func(_ context.Context, program string, _ ...string) (string, error) {
		return "", fmt.Errorf("running %s: %w", program, exec.ErrNotFound)
	}}
	if err := r.Do(func() error {
		found := k.Apply(context.Background(), r.needs())
		wantText(t, "no program", text(slices.DeleteFunc(found, func(f Finding) bool { return f.Repaired })),
			"chain FORWARD of iptables-nft: policy DROP, wanted accept for 10.244.1.0/24, marked \"flatnet: pods\", "+
				"PROBLEM iptables-nft is not installed where flatnetd runs\n")
		_, commands, _ := strings.Cut(found[len(found)-1].Hint, "`")
		commands = strings.TrimSuffix(commands, "`")
		r.runHere(t, "sh", "-c", commands)
		k.Run = nil
		wantWell(t, k, r.needs())
		k.Run = func(_ context.Context, program string, _ ...string) (string, error) {
			return "", fmt.Errorf("running %s: %w", program, exec.ErrNotFound)
		}
		return k.Remove(context.Background()) // not there, so not the one who added
	}); err != nil {
		t.Fatal(err)
	}
	r.wantTraffic(t, "4", true)
}

// TestPlainName: a system with one variant only may call it iptables.
func TestPlainName(t *testing.T) {
	for version, want := range map[string]string{
		"iptables v1.8.9 (nf_tables)": "iptables", "iptables v1.8.9 (legacy)": "iptables-nft", "iptables v1.6.1": "iptables-nft",
	} {
		k := &Keeper{Run: func(_ context.Context, program string, arg ...string) (string, error) {
			switch {
			case program != "iptables":
				return "", exec.ErrNotFound
			case arg[0] == "--version":
				return version, nil
			}
			return "-P FORWARD DROP\n", nil
		}}
		program, f, err := k.read(context.Background(), variants[0])
		if program != want || f.drops != (err == nil) || f.drops != (want == "iptables") {
			t.Errorf("%s: %s %v %v", version, program, f, err)
		}
	}
}

// TestForeignTable: a table that is not iptables' is reported and not touched;
// what the hint says is the end of it.
func TestForeignTable(t *testing.T) {
	for _, test := range []struct{ name, ruleset, want string }{
		{"inet", "table inet mine { chain pass { type filter hook forward priority 0; policy drop; } }",
			"chain inet mine pass: policy drop, wanted accept for 10.244.1.0/24, fd00:244:1::/64, PROBLEM it may drop what pods send and receive\n"},
		{"ip6, lower case", "table ip6 filter { chain forward { type filter hook forward priority 0; policy drop; } }",
			"chain ip6 filter forward: policy drop, wanted accept for fd00:244:1::/64, PROBLEM it may drop what pods send and receive\n"},
		{"accepting", "table inet mine { chain pass { type filter hook forward priority 0; policy accept; } }", ""},
		{"another hook", "table inet mine { chain in { type filter hook input priority 0; policy drop; } }", ""},
		{"bridge", "table bridge mine { chain pass { type filter hook forward priority 0; policy drop; } }", ""},
		{"flatnet's", "table inet flatnet { chain pass { type filter hook forward priority 0; policy drop; } }", ""},
		{"answered with one network", `table inet mine { chain pass { type filter hook forward priority 0; policy drop;
			ip saddr 10.244.0.0/15 accept; } }`,
			"chain inet mine pass: policy drop, wanted accept for fd00:244:1::/64, PROBLEM it may drop what pods send and receive\n"},
		{"answered in another chain, as firewalld does", `table inet firewalld { chain pods { accept; }
			chain zones { ip saddr 10.244.1.0/24 goto pods; ip6 saddr fd00:244:1::/64 goto pods; }
			chain filter_FORWARD { type filter hook forward priority 10; policy drop; jump zones; } }`, ""},
		{"firewalld reloads", "table inet firewalld_policy_drop { chain filter_forward { type filter hook forward priority 9; policy drop; } }", ""},
		{"its last rule rejects, as firewalld's", `table inet mine { chain pass { type filter hook forward priority 10; policy accept;
			ct state established,related accept; counter reject with icmpx admin-prohibited; } }`,
			"chain inet mine pass: ending in reject, wanted accept for 10.244.1.0/24, fd00:244:1::/64, PROBLEM it may drop what pods send and receive\n"},
		{"its last rule drops", `table ip mine { chain pass { type filter hook forward priority 0; drop; } }`,
			"chain ip mine pass: ending in drop, wanted accept for 10.244.1.0/24, PROBLEM it may drop what pods send and receive\n"},
		{"its last rule rejects some", `table inet mine { chain pass { type filter hook forward priority 0;
			meta l4proto tcp reject; tcp dport 25 reject with tcp reset; } }`, ""},
		{"named, but dropped", `table inet mine { chain pass { type filter hook forward priority 0; policy drop;
			ip saddr 10.244.1.0/24 drop; ip6 saddr fd00:244:1::/64 tcp dport 25 drop; } }`,
			"chain inet mine pass: policy drop, wanted accept for 10.244.1.0/24, fd00:244:1::/64, PROBLEM it may drop what pods send and receive\n"},
		{"a part of the network only", `table ip mine { chain pass { type filter hook forward priority 0; policy drop;
			ip saddr 10.244.1.0/25 accept; ip saddr != 10.0.0.0/8 accept; } }`,
			"chain ip mine pass: policy drop, wanted accept for 10.244.1.0/24, PROBLEM it may drop what pods send and receive\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inNode(t, func(node *netlab.Node) {
				nft := func(arg ...string) string {
					t.Helper()
					out, err := execute(context.Background(), "nft", arg...)
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				k := &Keeper{}
				k.Apply(context.Background(), dual()) // the sysctls
				nft(strings.ReplaceAll(test.ruleset, "}", "\n}\n"))
				before := nft("list", "ruleset")
				found := k.Apply(context.Background(), dual())
				wantText(t, "findings", text(found), test.want)
				wantText(t, "ruleset", nft("list", "ruleset"), before)
				for _, f := range found {
					_, commands, _ := strings.Cut(f.Hint, "`")
					if _, err := execute(context.Background(), "sh", "-c", strings.TrimSuffix(commands, "`")); err != nil {
						t.Errorf("following the hint: %v", err)
					}
				}
				wantWell(t, k, dual())
			})
		})
	}
}

func TestForeignFirewalldHint(t *testing.T) {
	f := foreignDrop(baseChain{table: "firewalld", name: "filter_FORWARD"}, prefixes("10.244.1.0/24"))
	if want := "`firewall-cmd --permanent --zone=trusted --add-source=10.244.1.0/24 && firewall-cmd --reload`"; !strings.Contains(f.Hint, want) {
		t.Errorf("hint: %s", f.Hint)
	}
	if !strings.Contains(f.Hint, "the other nodes' pods") {
		t.Errorf("hint says nothing of other nodes' pods, whose packets have another source: %s", f.Hint)
	}
}

// TestRejectsAtTheEnd: a FORWARD chain that ends in a reject, as Red Hat's default
// rules do, is reported though its policy is to accept; who accepts pods' packets
// before it has done what the hint says.
func TestRejectsAtTheEnd(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			r := newRouter(t)
			r.skipWithout(t, program)
			r.run(t, program, "-A", "FORWARD", "-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT")
			r.run(t, program, "-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
			needs := r.needs()
			needs.IPv6 = false
			found := func() (found string) {
				t.Helper()
				if err := r.Do(func() error { found = text((&Keeper{}).Apply(context.Background(), needs)); return nil }); err != nil {
					t.Fatal(err)
				}
				return found
			}
			wantText(t, "reject of everything", found(), "chain FORWARD of "+program+": policy ACCEPT, "+
				"wanted accept for 10.244.1.0/24, marked \"flatnet: pods\", "+
				"PROBLEM the rule `-A FORWARD -j REJECT --reject-with icmp-host-prohibited` comes first and drops what pods send and receive\n")
			r.run(t, program, "-I", "FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT")
			r.run(t, program, "-I", "FORWARD", "-d", "10.244.1.0/24", "-m", "comment", "--comment", "pods", "-j", "ACCEPT")
			wantText(t, "accepted before it", found(), "")
			r.run(t, program, "-P", "FORWARD", "DROP")
			found() // flatnet's are appended, though they are not needed
			wantText(t, "with a policy", found(), "")
		})
	}
}
