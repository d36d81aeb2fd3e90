// Package without is run on kernels that lack something (make kernels
// KERNELS="-without vxlan"): what flatnet says of it, and that the rest works.
package without

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// variable names the module that the kernel was booted without.
const variable = "FLATNET_WITHOUT"

// lacks are modules, and what flatnetd says where they are missing.
var lacks = map[string]struct {
	keys  []string // of the features that go with the module
	words string   // of the sentence
}{
	"veth":                 {[]string{"veth"}, "veth is missing: no pod can be attached"},
	"ipv6":                 {[]string{"ipv6"}, "IPv6 (ipv6) is missing: pods get no IPv6 addresses from flatnetd"},
	"vxlan":                {[]string{"vxlan"}, "VXLAN (vxlan) is missing: nodes that need the overlay are not reached"},
	"nf_tables":            {[]string{"nf_tables"}, "nf_tables is missing: pods can send from IPv6 addresses that are not theirs"},
	"nft_masq":             {[]string{"nft_masq"}, "nftables' masquerade (nft_masq) is missing: what pods send out of the cluster keeps their addresses"},
	"nft_fib":              {[]string{"nft_fib_inet", "nft_fib_ipv6"}, "nftables' fib for IPv6 (nft_fib_ipv6) is missing: pods can send from IPv6 addresses that are not theirs"},
	"nf_conntrack":         {[]string{"nft_chain_nat", "nft_masq"}, "nftables' masquerade (nft_masq) is missing: what pods send out of the cluster keeps their addresses"},
	"nf_conntrack_netlink": {[]string{"nf_conntrack_netlink"}, "conntrack's netlink (nf_conntrack_netlink) is missing: a pod can meet the connections"},
}

// missing is the module that the kernel was booted without.
func missing(t *testing.T) string {
	t.Helper()
	module := os.Getenv(variable)
	if module == "" {
		t.Skipf(`%s is not set: on other kernels, make kernels KERNELS="-without vxlan" does`, variable)
	}
	if _, known := lacks[module]; !known {
		t.Fatalf("nothing is known of a kernel without %s", module)
	}
	return module
}

// families are those that nodes can have.
func families(module string) cluster.Families {
	if module == "ipv6" {
		return cluster.IPv4
	}
	return cluster.Dual
}

// TestAgent: flatnetd says what is missing and what follows, in status and in
// metrics, and pods reach each other as far as it does not matter.
func TestAgent(t *testing.T) {
	module := missing(t)
	if module == "veth" {
		t.Skip("there are no nodes to make without veth; TestPlugin shows it")
	}
	c := cluster.Start(t)
	c.OneSegment(families(module), 2)
	if module == "ipv6" {
		// The cluster is dual-stack, and does not know what this kernel has.
		for _, n := range c.Nodes {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:30::%d", n.Number)))
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", n.Number)))
		}
	}
	c.Start()
	n := c.Node("n1")
	if module == "nf_conntrack_netlink" {
		// It matters where connections are tracked, which something has to do first.
		if out, err := n.Output("nft", "add table inet other; add chain inet other c { type filter hook forward priority 0; }; add rule inet other c ct state new accept"); err != nil {
			t.Fatal(out, err)
		}
		n.Restart()
	}
	c.Eventually("what is missing to be in the status", func() error {
		status, err := n.TryStatus()
		if err == nil && !strings.Contains(fmt.Sprint(status.Problems), lacks[module].words) {
			err = fmt.Errorf("there is no %q among %v", lacks[module].words, status.Problems)
		}
		return err
	})
	text, err := n.Flatnetd("status")
	if err != nil {
		t.Error(err)
	}
	t.Log("\n" + text)
	metrics := n.Metrics()
	for _, key := range lacks[module].keys {
		name := fmt.Sprintf("flatnet_kernel_feature{feature=%q}", key)
		if value, there := metrics[name]; !there || value != 0 {
			t.Errorf("%s is %v, %t", name, value, there)
		}
	}
	one, two := n.Pod("one"), c.Node("n2").Pod("two")
	for _, ipv6 := range families(module).Each() {
		for _, way := range [][2]*cluster.Pod{{one, two}, {two, one}} {
			from, to := way[0], way[1]
			at, stop, err := to.Echo(netip.AddrPortFrom(to.Address(ipv6), 0))
			if err != nil {
				t.Fatal(err)
			}
			seen, _, err := from.Ask(netip.Addr{}, at, pace.Far())
			if err != nil || seen != from.Address(ipv6) {
				t.Errorf("%s to %s: seen as %s, %v", from.Address(ipv6), at, seen, err)
			}
			stop()
		}
	}
	for _, p := range []*cluster.Pod{one, two} {
		if err := p.Check(); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		p.Delete()
	}
	n.Stop()
	if _, err := n.Flatnetd("cleanup"); err != nil {
		t.Errorf("cleanup: %v", err)
	}
}

// TestPlugin: STATUS and ADD of a configuration that needs what is missing say so
// in the same sentence, and leave nothing.
func TestPlugin(t *testing.T) {
	module := missing(t)
	want, needed := map[string]string{
		"veth": "veth is missing: no pod can be attached", "ipv6": "IPv6 (ipv6) is missing",
		"nf_tables": "nf_tables is missing", "nft_masq": "nftables' masquerade (nft_masq) is missing", "nf_conntrack": "is missing",
	}[module]
	lab := netlab.Start(t)
	node, pod := lab.Node("node"), lab.Pod("one")
	before := links(t, node)
	verb := func(name string) (string, error) {
		cmd := exec.Command(filepath.Join(os.Getenv("FLATNET_BINARIES"), "flatnet"))
		state := t.TempDir()
		cmd.Env = []string{"CNI_COMMAND=" + name, "CNI_CONTAINERID=c1", "CNI_NETNS=" + pod.Path, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere", "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"flatnet","ipMasq":true,"stateDir":%q,
			"ipam":{"dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]}}`, state+"/state", state+"/ipam"))
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		err := node.Run(cmd)
		return output.String(), err
	}
	for _, name := range []string{"STATUS", "ADD"} {
		text, err := verb(name)
		t.Logf("%s: %v\n%s", name, err, text)
		// STATUS asks for what it can know within a millisecond.
		quick := module == "veth" || module == "ipv6" || module == "nf_tables"
		refused := needed && (quick || name == "ADD")
		if refused && (err == nil || !strings.Contains(text, want)) {
			t.Errorf("%s does not say %q", name, want)
		}
		if !refused && err != nil {
			t.Errorf("%s fails", name)
		}
	}
	if text, err := verb("DEL"); err != nil {
		t.Errorf("DEL: %v\n%s", err, text)
	}
	if after := links(t, node); after != before {
		t.Errorf("left behind: %s", after)
	}
}

// links are a namespace's interfaces.
func links(t *testing.T, node *netlab.Node) string {
	t.Helper()
	all, err := node.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		if _, isLoopback := l.(*netlink.Device); !isLoopback {
			names = append(names, l.Attrs().Name)
		}
	}
	return strings.Join(names, " ")
}
