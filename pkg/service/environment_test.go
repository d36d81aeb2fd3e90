package service

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestRemove(t *testing.T) {
	k, ns := labKeeper(t)
	remove := func(want string) {
		t.Helper()
		must(t, ns.Do(func() error {
			removed, err := Remove()
			if got := strings.Join(removed, ", "); got != want {
				t.Errorf("removed %q, want %q", got, want)
			}
			return err
		}))
	}
	remove("")
	if _, err := ns.Output("nft", "add table ip other"); err != nil {
		t.Fatal(err)
	}
	must(t, ns.Do(func() error {
		_, err := k.Sync(t.Context(), Plan(nodeN(1), many(3, 3)))
		return err
	}))
	remove("nftables table ip flatnet-services, nftables table ip6 flatnet-services")
	remove("")
	if out, err := ns.Output("nft", "list ruleset"); err != nil || strings.TrimSpace(out) != "table ip other {\n}" {
		t.Errorf("left: %s, %v", out, err)
	}
}

// TestUpgrade: the tables that the version before has left, which it wrote with the
// program nft, are taken over: no element is written, and nothing is made anew.
func TestUpgrade(t *testing.T) {
	before, err := os.ReadFile("testdata/before.nft")
	must(t, err)
	var script strings.Builder
	for line := range strings.Lines(string(before)) {
		// What nft 1.0.6 cannot write was written by netlink.
		if !strings.Contains(line, "update @affinity") || strings.Contains(line, "add rule ip ") {
			script.WriteString(line)
		}
	}
	k, ns := labKeeper(t)
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(script.String())
	must(t, ns.Run(load))
	k.verified = true // so that it says what it finds
	var result Result
	must(t, ns.Do(func() (err error) {
		result, err = k.Verify(t.Context(), goldenRuleset(t))
		return err
	}))
	if result.Elements > 0 {
		t.Errorf("%d elements are written", result.Elements)
	}
	for _, found := range result.Found {
		if !strings.Contains(found, "stamps") && !strings.Contains(found, "version-2") && !strings.Contains(found, "table ip6 flatnet-services: chain remember-") {
			t.Errorf("found is %s", found)
		}
	}
}

func TestKubeProxy(t *testing.T) {
	for script, want := range map[string]string{
		"":                          "",
		"add table ip nat":          "",
		"add table inet kube-proxy": "", // not kube-proxy's
		"add table ip6 kube-proxy":  "nftables table ip6 kube-proxy",
		"add table ip filter; add chain ip filter KUBE-SERVICES":                                                                        "",
		"add table ip nat; add chain ip nat KUBE-MARK-MASQ":                                                                             "", // kubelet's
		"add table ip nat; add chain ip nat KUBE-SERVICES; add table ip6 nat; add chain ip6 nat KUBE-SERVICES; add table ip kube-proxy": "ip6tables chain KUBE-SERVICES of table nat, iptables chain KUBE-SERVICES of table nat, nftables table ip kube-proxy",
	} {
		ns := netlab.Start(t).Namespace("node")
		if script != "" {
			if _, err := ns.Output("nft", script); err != nil {
				t.Fatal(err)
			}
		}
		must(t, ns.Do(func() error {
			traces, err := KubeProxy()
			if got := strings.Join(traces, ", "); got != want || !slices.IsSorted(traces) {
				t.Errorf("%s: %q, want %q", script, got, want)
			}
			return err
		}))
	}
}

// TestLegacyKubeProxy: rules of iptables-legacy are not nftables', and are noticed all
// the same.
func TestLegacyKubeProxy(t *testing.T) {
	ns := netlab.Start(t).Namespace("node")
	expect := func(want string) {
		t.Helper()
		must(t, ns.Do(func() error {
			traces, err := KubeProxy()
			if got := strings.Join(traces, ", "); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if advised := strings.Contains(WithoutKubeProxy(traces), "legacy"); advised != (want != "") {
				t.Errorf("traces %q lead to advice %q", traces, WithoutKubeProxy(traces))
			}
			return err
		}))
	}
	want := ""
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is needed: %v", program, err)
		}
		expect(want)
		if _, err := ns.Output(program, "-t", "nat", "-N", "KUBE-MARK-MASQ"); err != nil {
			if strings.Contains(err.Error(), "can't initialize") {
				t.Skipf("the kernel has no table nat of %s: %v", program, err)
			}
			t.Fatal(err)
		}
		expect(want) // that chain is kubelet's as well
		_, err := ns.Output(program, "-t", "nat", "-N", "KUBE-SERVICES")
		must(t, err)
		want = strings.TrimSuffix(program+" chain KUBE-SERVICES of table nat, "+want, ", ")
		expect(want)
	}
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		_, err := ns.Output(program, "-t", "nat", "-X")
		must(t, err)
	}
	expect("")
}
