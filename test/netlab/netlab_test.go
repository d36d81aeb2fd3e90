package netlab

import (
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestNodesOnOneSegmentAndBehindARouter(t *testing.T) {
	lab := Start(t)
	left, right := lab.Segment("left"), lab.Segment("right")
	a := lab.Node("a", left.Port("172.30.0.1/24", "fd00:30::1/64"))
	b := lab.Node("b", left.Port("172.30.0.2/24", "fd00:30::2/64"))
	c := lab.Node("c", right.Port("172.30.1.1/24", "fd00:31::1/64"))
	lab.Router("r", left.Port("172.30.0.254/24", "fd00:30::fe/64"), right.Port("172.30.1.254/24", "fd00:31::fe/64"))
	for _, route := range []struct {
		node    *Node
		gateway string
	}{{a, "172.30.0.254"}, {a, "fd00:30::fe"}, {c, "172.30.1.254"}, {c, "fd00:31::fe"}} {
		if err := route.node.AddRoute("default", route.gateway); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		server *Node
		listen string
		want   string
	}{
		{b, "172.30.0.2:7000", "172.30.0.1"},
		{b, "[fd00:30::2]:7000", "fd00:30::1"},
		{c, "172.30.1.1:7000", "172.30.0.1"},
		{c, "[fd00:31::1]:7000", "fd00:30::1"},
	} {
		at, stop, err := c.server.Echo(netip.MustParseAddrPort(c.listen))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		seen, _, err := a.Ask(netip.Addr{}, at, 5*time.Second)
		if err != nil || seen.String() != c.want {
			t.Errorf("%s saw %s, %v; want %s", c.listen, seen, err, c.want)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before, _ := os.ReadDir(namespaceDirectory)
	lab := New()
	segment := lab.Segment("lan")
	lab.Node("a", segment.Port("172.30.0.1/24"))
	gone := lab.Pod("gone")
	if err := unbind(gone.Path); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadDir(namespaceDirectory)
	if len(after) != len(before) {
		t.Errorf("%d namespaces before, %d after", len(before), len(after))
	}
}

func TestCaptureAndTransfer(t *testing.T) {
	lab := Start(t)
	lan := lab.Segment("lan")
	a := lab.Node("a", lan.Port("172.30.0.1/24", "fd00:30::1/64"))
	b := lab.Node("b", lan.Port("172.30.0.2/24", "fd00:30::2/64"))
	for _, pair := range [][2]string{{"172.30.0.1", "172.30.0.2"}, {"fd00:30::1", "fd00:30::2"}} {
		source, destination := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		stop, err := lan.Capture(4789)
		if err != nil {
			t.Fatal(err)
		}
		seen, err := Transfer(a.Namespace, b.Namespace, destination, 1<<20, 10*time.Second)
		if err != nil || seen != source {
			t.Errorf("%s saw %s, %v", destination, seen, err)
		}
		packets, err := stop()
		if err != nil {
			t.Fatal(err)
		}
		there, back := 0, 0
		for _, p := range packets {
			switch {
			case p.Source == source && p.Destination == destination && p.Protocol == 6:
				there += p.Size
			case p.Source == destination && p.Destination == source && p.Protocol == 6:
				back++
			}
		}
		// Each packet is seen once: headers are far less than another megabyte.
		if there < 1<<20 || there > 3<<19 || back == 0 {
			t.Errorf("%d bytes of packets to %s were seen, and %d packets back: %v", there, destination, back, packets[:min(len(packets), 3)])
		}
	}
}

func TestCaptureReadsVXLAN(t *testing.T) {
	raw := []byte{
		0x45, 0, 0, 78, 0, 0, 0x40, 0, 64, 17, 0, 0, 172, 30, 0, 1, 172, 30, 0, 2, // IPv4
		0x30, 0x39, 0x12, 0xb5, 0, 58, 0, 0, // UDP to 4789
		8, 0, 0, 0, 0, 0, 70, 0, // VXLAN
		2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 244, 1, 2, 10, 244, 2, 2, // IPv4
		0, 7, 0, 9, 0, 8, 0, 0, // UDP
	}
	const want = "172.30.0.1:12345 > 172.30.0.2:4789 proto 17 size 78 vni 70 [10.244.1.2:7 > 10.244.2.2:9 proto 17 size 28]"
	if p := parsePacket(raw, 4789); p == nil || p.String() != want || !p.DontFragment || p.Fragment {
		t.Errorf("packet is %v, want %s", p, want)
	}
}
