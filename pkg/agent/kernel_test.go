package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// kernelWithout is a kernel that lacks features.
type kernelWithout []string

func (kernelWithout) Release() string { return "6.1.0-9" }

func (k kernelWithout) Probe(all []requirements.Feature) []error {
	results := make([]error, len(all))
	for i, f := range all {
		if slices.Contains(k, f.Key) {
			results[i] = requirements.ErrMissing
		}
	}
	return results
}

// What the kernel lacks switches off what needs it, and only that.
func TestWhatTheKernelLacksIsOff(t *testing.T) {
	dual := []node.Node{{
		Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:30::1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")},
	}}
	single := []node.Node{{Name: "n1", Addresses: dual[0].Addresses[:1], PodCIDRs: dual[0].PodCIDRs[:1]}}
	for _, c := range []struct {
		name     string
		lacks    kernelWithout
		services bool
		nodes    []node.Node
		want     string
	}{
		{"nothing", nil, false, dual, "IPv6 on, overlay on, masquerade on, guard on, tables on"},
		{"VXLAN", kernelWithout{"vxlan"}, false, dual, `IPv6 on, overlay off, masquerade on, guard on, tables on
node n1: kernel 6.1.0-9: VXLAN (vxlan) is missing: nodes that need the overlay are not reached`},
		{"IPv6", kernelWithout{"ipv6", "nft_fib_ipv6"}, false, dual, `IPv6 off, overlay on, masquerade on, guard on, tables on
node n1: kernel 6.1.0-9: IPv6 (ipv6) is missing: pods get no IPv6 addresses from flatnetd, and the plugin refuses those that are to have one`},
		{"IPv6, and nobody wants it", kernelWithout{"ipv6"}, false, single, `IPv6 off, overlay on, masquerade on, guard on, tables on`},
		{"nf_tables", kernelWithout{"nf_tables"}, false, dual, `IPv6 on, overlay on, masquerade off, guard off, tables off
node n1: kernel 6.1.0-9: nf_tables is missing: pods can send from IPv6 addresses that are not theirs; pods can send from IPv4 addresses that are not theirs where net.ipv4.conf.all.rp_filter is 2; what pods send out of the cluster keeps their addresses; pods with ports of the node are refused`},
		{"masquerade", kernelWithout{"nft_masq"}, true, dual, `IPv6 on, overlay on, masquerade off, guard on, tables on
node n1: kernel 6.1.0-9: nftables' masquerade (nft_masq) is missing: what pods send out of the cluster keeps their addresses; flatnetd balances no Services; pods with ports of the node are refused`},
		{"rates", kernelWithout{"sch_tbf", "sch_htb"}, false, dual, `IPv6 on, overlay on, masquerade on, guard on, tables on
node n1: kernel 6.1.0-9: token buckets (sch_tbf) is missing: pods with a rate are refused`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := Config{NodeName: "n1", Services: c.services, MasqueradeIPv4: true, Fabric: fabric.Config{Mode: fabric.Auto, Nodes: true}}
			s := &feature.Shared{Facts: feature.Facts{Nodes: c.nodes, Kernel: askKernel(c.lacks, config.parts())}}
			f := newFabric(config, nil, s)
			f.configure()
			state := func(on bool) string {
				if on {
					return "on"
				}
				return "off"
			}
			possible := f.possible(c.nodes)
			got := fmt.Sprintf("IPv6 %s, overlay %s, masquerade %s, guard %s, tables %s",
				state(!s.Kernel.Lacks(requirements.IPv6)), state(f.planner.Config.WithoutOverlay == ""), state(!s.Kernel.Lacks(requirements.Masquerade)),
				state(!s.Kernel.Lacks(requirements.Guard6)), state(s.TablesPossible()))
			for _, p := range newKernelKeeping(config, s).problems() {
				got += "\n" + p.String()
				if c.services != strings.Contains(p.Advice(), "start flatnetd again") {
					t.Errorf("advice %q", p.Advice())
				}
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if has := slices.ContainsFunc(possible[0].PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }); has && s.Kernel.Lacks(requirements.IPv6) {
				t.Errorf("nodes are %v", possible)
			}
			if len(c.nodes[0].PodCIDRs) != len(dual[0].PodCIDRs) && len(c.nodes[0].PodCIDRs) != 1 {
				t.Error("the source's list was changed")
			}
		})
	}
}
