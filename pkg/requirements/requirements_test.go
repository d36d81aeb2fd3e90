package requirements

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fake is a kernel that lacks some features, by their keys.
type fake struct {
	release string
	lacks   []string
	mute    []string // features that it cannot be asked for
}

func (f fake) Release() string { return f.release }

func (f fake) Probe(all []Feature) []error {
	results := make([]error, len(all))
	for i, feature := range all {
		switch {
		case slices.Contains(f.lacks, feature.Key):
			results[i] = fmt.Errorf("%w: operation not supported", ErrMissing)
		case slices.Contains(f.mute, feature.Key):
			results[i] = errors.New("operation not permitted")
		}
	}
	return results
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	agent := []Part{Pods, IPv6, Overlay, OverlayNodes, Masquerade, Guard4, Guard6, Forgetting, HostPorts, Rates}
	for _, c := range []struct {
		name  string
		lacks []string
		parts []Part
		want  string
	}{
		{"nothing", nil, everyPart, ""},
		{"not needed", []string{"vxlan", "nf_tables"}, []Part{Pods}, ""},
		{"VXLAN", []string{"vxlan"}, agent, `
kernel 6.1.0-9: VXLAN (vxlan) is missing: nodes that need the overlay are not reached
	` + "`modprobe vxlan` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_VXLAN"},
		{"IPv6", []string{"ipv6"}, agent, `
kernel 6.1.0-9: IPv6 (ipv6) is missing: pods get no IPv6 addresses from flatnetd, and the plugin refuses those that are to have one
	boot without ipv6.disable=1, with a kernel that has CONFIG_IPV6, or use no IPv6 podCIDRs`},
		// One sentence, not one for each thing that is beneath it.
		{"nf_tables", []string{"nf_tables", "nft_masq", "nft_fib_ipv6"}, append(agent, IPMasq, Services), `
kernel 6.1.0-9: nf_tables is missing: what pods send out of the cluster keeps their addresses; pods can send from IPv4 addresses that are not theirs where net.ipv4.conf.all.rp_filter is 2; pods can send from IPv6 addresses that are not theirs; pods with ports of the node are refused; pods with ipMasq are refused; flatnetd balances no Services
	` + "`modprobe nf_tables` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_NF_TABLES"},
		{"fib", []string{"nft_fib_ipv6"}, agent, `
kernel 6.1.0-9: nftables' fib for IPv6 (nft_fib_ipv6) is missing: pods can send from IPv6 addresses that are not theirs
	` + "`modprobe nft_fib_ipv6` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_NFT_FIB_IPV6"},
		{"host ports", []string{"nft_nat"}, agent, `
kernel 6.1.0-9: nftables' dnat (nft_nat) is missing: pods with ports of the node are refused
	` + "`modprobe nft_nat` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_NFT_NAT"},
		{"rates", []string{"sch_tbf", "sch_htb", "cls_u32"}, agent, `
kernel 6.1.0-9: token buckets (sch_tbf) is missing: pods with a rate are refused
	` + "`modprobe sch_tbf` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_NET_SCH_TBF"},
		{"rates of networks", []string{"sch_tbf", "cls_u32"}, []Part{Pods, NetworkRates}, `
kernel 6.1.0-9: filters of traffic by address (cls_u32) is missing: pods with a rate and shapedSubnets or unshapedSubnets are refused
	` + "`modprobe cls_u32` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_NET_CLS_U32"},
		{"netkit, where veth would do", []string{"netkit"}, []Part{Pods, Netkit}, `
kernel 6.1.0-9: netkit (NETKIT) is missing: pods whose interfaces are to be netkit are refused
	the kernel needs CONFIG_NETKIT; Linux 6.12 and later have it; or have pods' interfaces be veth (--pod-device veth or auto, podDevice in the plugin's configuration)`},
		{"two", []string{"veth", "rules"}, agent, `
kernel 6.1.0-9: veth is missing: no pod can be attached
	` + "`modprobe veth` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_VETH" + `
kernel 6.1.0-9: routing by rules (IP_MULTIPLE_TABLES) is missing: pods send from their own addresses to other nodes, as with --overlay-nodes=false
	the kernel needs CONFIG_IP_MULTIPLE_TABLES`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Check(fake{release: "6.1.0-9", lacks: c.lacks}, c.parts...)
			got := ""
			for _, m := range r.Missing {
				got += fmt.Sprintf("\n%s\n\t%s", m, m.Hint())
			}
			if got != c.want {
				t.Errorf("got%s\nwant%s", got, c.want)
			}
			for _, p := range c.parts {
				if want := strings.Contains(got, without(p)); r.Lacks(p) != want {
					t.Errorf("Lacks(%s) is %v", p, r.Lacks(p))
				}
			}
		})
	}
}

// What could not be asked is neither there nor missing.
func TestWhatCannotBeAskedIsNotMissing(t *testing.T) {
	r := Check(fake{release: "6.1", mute: []string{"vxlan", "veth"}}, Pods, Overlay)
	if len(r.Missing)+len(r.Present) > 0 || r.Lacks(Pods) || len(r.Unknown) != 1 {
		t.Errorf("missing %v, present %v, unknown %v", r.Missing, r.Present, r.Unknown)
	}
}

// Where a kernel cannot be asked, its number decides, and then the hint names the version.
func TestOldKernel(t *testing.T) {
	var asked []Feature
	for _, f := range features() {
		if f.probe == nil {
			asked = append(asked, f)
		}
	}
	for release, want := range map[string]bool{"4.18.0-553.el8": true, "5.8.18": true, "5.9.0": false, "6.18.44": false, "7.2.13+deb14": false, "custom": false} {
		for _, f := range asked {
			if err := judged(release, f); errors.Is(err, ErrMissing) != want {
				t.Errorf("%s in %s: %v", f.Name, release, err)
			}
		}
	}
	m := Missing{Feature: asked[0], Release: "4.18.0-553.el8", Affected: []Part{Services}}
	const sentence = "kernel 4.18.0-553.el8: nftables' reject in prerouting is missing: flatnetd balances no Services"
	if m.String() != sentence || m.Hint() != "Linux 5.9 and later have it" {
		t.Errorf("%s\n%s", m, m.Hint())
	}
}

// Every feature can be told from the others, and every part's loss has words.
func TestTableIsComplete(t *testing.T) {
	keys := map[string]bool{}
	for _, f := range features() {
		if keys[f.Key] || f.Key == "" || len(f.Parts) == 0 {
			t.Errorf("%+v", f)
		}
		keys[f.Key] = true
		if f.Beneath != "" && !keys[f.Beneath] {
			t.Errorf("%s is beneath %s, which comes later", f.Key, f.Beneath)
		}
	}
	for _, p := range append(everyPart, Netkit) {
		if without(p) == "" {
			t.Errorf("no words for the loss of %s", p)
		}
	}
}
