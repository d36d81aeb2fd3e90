package host

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// inNode calls f on a thread in a fresh node with eth0 and a VXLAN device.
func inNode(t *testing.T, f func(node *netlab.Node)) {
	t.Helper()
	lab := netlab.Start(t)
	node := lab.Node("node", lab.Segment("lan").Port("172.30.0.1/24", "fd00:30::1/64"))
	if err := node.Netlink().LinkAdd(&netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "flatnet.vx"}, VxlanId: 70, Port: 4789, FlowBased: false,
	}); err != nil {
		t.Fatal(err)
	}
	node.Test(t, func() { f(node) })
}

// dual are the needs of a dual-stack node of [inNode].
func dual() Needs {
	return Needs{
		IPv4: true, IPv6: true, Underlay: []string{"eth0"}, Tunnel: "flatnet.vx",
		OwnPodCIDRs: prefixes("10.244.1.0/24", "fd00:244:1::/64"), Pods: 1000, Nodes: 24,
		HostInterfacePrefix: "veth",
	}
}

// text writes findings down, a line each.
func text(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s: %s, wanted %s", f.Object, f.Found, f.Wanted)
		if f.Repaired {
			b.WriteString(", repaired")
		}
		if f.Problem != "" {
			b.WriteString(", PROBLEM " + f.Problem)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

// wantWell applies and fails where there is still something to find.
func wantWell(t *testing.T, k *Keeper, n Needs) {
	t.Helper()
	if found := k.Apply(context.Background(), n); len(found) > 0 {
		t.Errorf("applied again, there is still:\n%s", text(found))
	}
}

func setSysctls(t *testing.T, node *netlab.Node, values ...string) {
	t.Helper()
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		if err := node.SetSysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
}

func wantSysctls(t *testing.T, node *netlab.Node, values ...string) {
	t.Helper()
	for _, v := range values {
		key, want, _ := strings.Cut(v, "=")
		if got, err := node.Sysctl(key); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %s", key, got, err, want)
		}
	}
}
