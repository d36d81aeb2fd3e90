package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { Main(m) }

func TestPodsOfTwoNodes(t *testing.T) {
	c := Start(t)
	c.OneSegment(Dual, 2)
	c.Start()
	one, two := c.Node("n1").Pod("one"), c.Node("n2").Pod("two")
	for _, ipv6 := range []bool{false, true} {
		at, stop, err := two.Echo(netip.AddrPortFrom(two.Address(ipv6), 0))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		if seen, _, err := one.Ask(netip.Addr{}, at, patience); err != nil || seen != one.Address(ipv6) {
			t.Errorf("%s saw %s, %v; want %s", at, seen, err, one.Address(ipv6))
		}
	}
	n := c.Node("n1")
	if s := n.Status(); !s.Ready || len(s.Peers) != 1 {
		t.Errorf("status is %+v", s)
	}
	if m := n.Metrics(); m[`flatnet_peers{mode="direct"}`] != 1 {
		t.Errorf("metrics are %v", m)
	}
	if text, err := n.Flatnetd("status"); err != nil || !strings.Contains(text, "node n1: ready") {
		t.Errorf("flatnetd status: %v\n%s", err, text)
	}
	n.Kill()
	n.Start()
	n.WaitReady()
	n.Restart("--fabric", "vxlan")
	t.Logf("flatnetd ended within %s", n.Stop())
	one.Delete()
}

func TestFlatnetdThatEndsIsNotWaitedFor(t *testing.T) {
	lab := netlab.New()
	c := New(lab, Start(t).Binaries)
	t.Cleanup(func() {
		if err := errors.Join(lab.Close(), os.RemoveAll(c.Directory)); err != nil {
			t.Error(err)
		}
	})
	n := c.OneSegment(IPv4, 1).cluster.Node("n1")
	c.WriteNodes()
	n.Start("--vxlan-id=0")
	defer func() {
		n.Wait()
		if got := fmt.Sprint(recover()); got != "node n1: flatnetd has ended before it was ready: exit status 2" {
			t.Error(got)
		}
	}()
	n.WaitReady()
	t.Error("it is ready")
}
