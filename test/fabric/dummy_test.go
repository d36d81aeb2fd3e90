package fabric_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestAddressOnDummy: a node's address may be on an interface that leads nowhere,
// as routing daemons have it, and be reached by way of another; and what others
// keep on such interfaces is none of flatnet's business.
func TestAddressOnDummy(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.IPv4)
	for _, n := range s.Nodes {
		if out, err := n.Output("ip", "link", "add", "dummy0", "type", "dummy"); err != nil {
			t.Skipf("this kernel has no dummy interfaces: %v%s", err, out)
		}
		other := s.Nodes[2-n.Number]
		get(n.Output("sh", "-ec", fmt.Sprintf(`ip link set dummy0 up
ip addr add 192.0.2.%d/32 dev dummy0
ip route add 192.0.2.%d/32 via %s
ip link add nodelocaldns type dummy
ip addr add 169.254.20.10/32 dev nodelocaldns`, n.Number, other.Number, other.Addresses[0])))(t)
	}
	for _, n := range s.Nodes {
		n.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n.Number))}
	}
	s.Start("--fabric", "vxlan")
	n := s.Node("n1")
	one, two := placePod(t, n, "one"), placePod(t, s.Node("n2"), "two")
	one.reaches(t, two, false)
	two.reaches(t, one, false)
	// One that comes and goes is no news.
	for range 3 {
		get(n.Output("sh", "-ec", "ip link set nodelocaldns up; ip link set nodelocaldns down"))(t)
	}
	one.reaches(t, two, false)
	if problems := n.Status().Problems; len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	if repairs := n.Repairs(""); repairs != 0 {
		t.Errorf("%v repairs", repairs)
	}
	n.Stop()
	get(n.Flatnetd("cleanup"))(t)
	text := get(n.Output("ip", "-o", "addr", "show"))(t)
	for _, want := range []string{"192.0.2.1/32", "169.254.20.10/32"} {
		if !strings.Contains(text, want) {
			t.Errorf("after cleanup %s is gone:\n%s", want, text)
		}
	}
}
