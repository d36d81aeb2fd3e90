package health

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// answer has a machine answer at addresses outside of its interfaces.
func answer(t *testing.T, n *netlab.Node, addresses ...string) {
	t.Helper()
	if err := n.Do(func() error {
		k, err := kernel.NewFabric("none")
		if err != nil {
			return err
		}
		defer k.Close()
		for _, a := range addresses {
			if err := k.Apply([]kernel.Change{{Verb: kernel.Add, Object: kernel.Answered{Address: netip.MustParseAddr(a), Lasting: true}}})[0]; err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSocket: what kernels say to probes, in both families, between addresses that no
// interface has.
func TestSocket(t *testing.T) {
	lab := netlab.Start(t)
	segment := lab.Segment("a")
	one, two := lab.Node("one", segment.Port("172.30.0.1/24", "fd00:30::1/64")), lab.Router("two", segment.Port("172.30.0.2/24", "fd00:30::2/64"))
	answer(t, one, "10.0.1.1", "fd00:1::1")
	answer(t, two, "10.0.2.1", "fd00:2::1")
	for _, r := range []struct {
		n       *netlab.Node
		to, via string
	}{{one, "10.0.2.0/24", "172.30.0.2"}, {two, "10.0.1.0/24", "172.30.0.1"}, {one, "fd00:2::/64", "fd00:30::2"}, {two, "fd00:1::/64", "fd00:30::1"}} {
		if err := r.n.AddRoute(r.to, r.via); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := two.Output("sh", "-ec", "ip route add unreachable 10.0.2.0/24 metric 9999; ip -6 route add unreachable fd00:2::/64 metric 9999"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ source, there, missing, peer string }{
		{"10.0.1.1", "10.0.2.1", "10.0.2.2", "172.30.0.2"}, {"fd00:1::1", "fd00:2::1", "fd00:2::2", "fd00:30::2"},
	} {
		var n Network
		if err := one.Do(func() (err error) {
			n, err = Open(netip.MustParseAddr(c.source))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		ask := func(to string, sequence uint16, size int) (m Message) {
			t.Helper()
			if err := n.Send(netip.MustParseAddr(to), sequence, size); err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			if _, err := pace.Await(pace.Far(), func() error {
				got := 0
				n.Receive(func(next Message) { m, got = next, got+1 })
				if got != 1 {
					return fmt.Errorf("%d messages", got)
				}
				return nil
			}); err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			if m.Sequence != sequence || m.To.String() != to {
				t.Errorf("to %s with %d: %+v", to, sequence, m)
			}
			return m
		}
		for sequence, size := range map[uint16]int{7: 0, 65535: 1500, 0: 1400} {
			if m := ask(c.there, sequence, size); m.Kind != Answer || m.From.String() != c.there || m.RoundTrip <= 0 || m.RoundTrip > Timeout {
				t.Errorf("%+v", m)
			}
		}
		if m := ask(c.missing, 8, 0); m.Kind != Unreachable || m.From.String() != c.peer || m.Text == "" {
			t.Errorf("%+v", m)
		}
		if err := n.Send(netip.MustParseAddr(c.there), 9, 1501); err != ErrTooLarge {
			t.Errorf("a probe larger than the interface takes: %v", err)
		}
		// What is not for this socket does not arrive.
		other, err := one.Ping(netip.MustParseAddr(c.there), 1e6)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pace.Await(pace.Far(), func() error {
			if e, err := other.Echoes(); err != nil || e.Answered < 5 {
				return fmt.Errorf("%+v, %w", e, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if _, err := other.Stop(pace.Far()); err != nil {
			t.Error(err)
		}
		n.Receive(func(m Message) { t.Errorf("received %+v", m) })
	}
	if err := one.Do(func() error {
		_, err := Open(netip.MustParseAddr("10.0.9.9"))
		if err == nil {
			t.Error("probes are sent from an address that the machine does not have")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// FuzzParse: whatever arrives, nothing but one's own is taken for it.
func FuzzParse(f *testing.F) {
	f.Add(request(nil, false, 7, 8, 0, 1), false)
	f.Add(request(nil, true, 7, 8, 0, 1), true)
	f.Add(append([]byte{3, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 1, 1, 10, 0, 2, 1}, request(nil, false, 7, 8, 0, 1)...), false)
	f.Fuzz(func(t *testing.T, b []byte, ipv6 bool) {
		from := netip.MustParseAddr("10.0.2.1")
		if ipv6 {
			from = netip.MustParseAddr("fd00:2::1")
		}
		if m, _, ok := parse(b, from, 7); ok && (m.From != from || !m.To.IsValid() || m.Kind != Answer && m.Text == "") {
			t.Errorf("%x is %+v", b, m)
		}
	})
}
