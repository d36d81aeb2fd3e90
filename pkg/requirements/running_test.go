package requirements

import (
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// everyPart is what flatnet needs; netkit is a choice.
var everyPart = []Part{Pods, IPv6, Overlay, OverlayNodes, Masquerade, IPMasq, Guard4, Guard6, Services, Services6, Policies, HostPorts, Rates, NetworkRates, Forgetting}

// The kernel under test runs all other tests, so it has everything; and being
// asked leaves nothing behind.
func TestRunningKernelHasAll(t *testing.T) {
	ns := netlab.Start(t).Namespace("node")
	// Somebody's own queue stays, and is not in the way of a question.
	if _, err := ns.Output("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "tbf", "rate", "1gbit", "burst", "100k", "limit", "1m"); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		var all []string
		for _, command := range []string{"ip -d link", "ip rule", "ip -6 rule", "tc qdisc", "nft list ruleset"} {
			out, err := ns.Output(strings.Fields(command)[0], strings.Fields(command)[1:]...)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, out)
		}
		return strings.Join(all, "\n")
	}
	generation := func() string {
		out, err := ns.Output("nft", "--debug=netlink", "list", "tables")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before, generationBefore := state(), generation()
	// Without a directory of modules every feature is asked for.
	asked := Running{Modules: t.TempDir()}
	for _, k := range []Running{asked, {}} {
		begin := time.Now()
		var r Report
		if err := ns.Do(func() error { r = Check(k, everyPart...); return nil }); err != nil {
			t.Fatal(err)
		}
		t.Logf("asked in %s: %d features", time.Since(begin), len(r.Present))
		for _, m := range r.Missing {
			t.Errorf("%s\n%s", m, m.Hint())
		}
		for _, err := range r.Unknown {
			t.Error(err)
		}
		if all := rounds(everyPart); len(r.Present) != len(all[0])+len(all[1]) {
			t.Errorf("%d of %d features present", len(r.Present), len(all[0])+len(all[1]))
		}
		var choice Report
		if err := ns.Do(func() error { choice = Check(k, Netkit); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(choice.Present)+len(choice.Missing) != 1 || len(choice.Unknown) > 0 {
			t.Errorf("netkit is there: %v; is not: %v; unknown: %v", choice.Present, choice.Missing, choice.Unknown)
		}
	}
	if after := state(); after != before {
		t.Errorf("asking has changed\n%s\nto\n%s", before, after)
	}
	if after := generation(); after != generationBefore {
		t.Errorf("generation was %q, is %q", generationBefore, after)
	}
}

// What no kernel has is said to be missing.
func TestRunningKernelLacksTheImpossible(t *testing.T) {
	ns := netlab.Start(t).Namespace("node")
	impossible := []Feature{
		{Name: "a kind of interface", probe: linkKind("flatnetnone")},
		{Name: "a family of sockets", probe: protocolFamily(12345)},
		{Name: "a subsystem", probe: subsystem{14, 0}},
		{Name: "an expression", probe: expression{of: unix.NFPROTO_IPV4, code: &expr.Socket{Key: 99, Register: 1}}},
		{Name: "a family of chains", probe: natChain{7}}, // of bridges
		{Name: "a kind of queue", probe: queue("flatnetnone")},
		{Name: "a kind of filter", probe: filter("flatnetnone")},
		{Name: "the future", Since: Version{999, 0}},
	}
	err := ns.Do(func() error {
		for i, err := range (Running{}).Probe(impossible) {
			if err == nil || !strings.HasPrefix(err.Error(), ErrMissing.Error()) {
				t.Errorf("%s: %v", impossible[i].Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
