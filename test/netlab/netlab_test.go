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
