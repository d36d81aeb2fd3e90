package kernel

import (
	"errors"
	"math"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// onPair calls f with a pair of interfaces between a node and a pod, both down.
func onPair(t *testing.T, f func(n *Netlink, node *netlab.Node, pod *netlab.Namespace)) {
	withNetlink(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		pair := Pair{Host: End{"veth0", mac("0a:00:00:00:00:01")}, Pod: End{"eth0", mac("0a:00:00:00:00:02")}, MTU: 1500}
		if err := n.Make(pair); err != nil {
			t.Fatal(err)
		}
		f(n, node, pod)
	})
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// shapers are one of each shape, at rates that the kernel counts in 32 bits and more,
// with bursts that take longer than its 32 bits of ticks.
func shapers() []Shaper {
	networks := prefixes("10.0.0.0/8", "192.168.1.128/25", "fd00::/64", "2001:db8:1::/40", "0.0.0.0/0", "::/0", "10.1.2.3/32")
	return []Shaper{
		{Rate: 8, Burst: 1514, Limit: 2000},
		{Rate: 8, Burst: math.MaxUint32, Limit: math.MaxUint32},
		{Rate: 1_000_000, Burst: 32 << 10, Limit: 40000},
		{Rate: 10_000_000_000, Burst: 12_500_000, Limit: 43_750_000},
		{Rate: 400_000_000_000, Burst: math.MaxUint32, Limit: math.MaxUint32},
		{Rate: 1_000_000, Burst: 32 << 10, Limit: 40000, Unshaped: networks},
		{Rate: 1_000_000, Burst: 32 << 10, Limit: 40000, Shaped: networks},
		{Rate: 400_000_000_000, Burst: math.MaxUint32, Limit: math.MaxUint32, Shaped: networks[:1]},
		{Rate: 8, Burst: math.MaxUint32, Limit: math.MaxUint32, Unshaped: networks[2:3]},
	}
}

func (s Shaper) at(side Side, link string) Shaper {
	s.Side, s.Link = side, link
	return s
}

// Each shape takes the place of the one before, on either side, and what is there is
// not taken for any other one.
func TestShapersAreMadeAndCompared(t *testing.T) {
	onPair(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		for _, end := range []Up{{Host, "veth0"}, {Pod, "eth0"}} {
			all := shapers()
			for i, s := range all {
				s = s.at(end.Side, end.Link)
				if i == len(all)/2 {
					if err := n.Make(end); err != nil { // the rest on an interface that is up
						t.Fatal(err)
					}
				}
				if err := n.Make(s); err != nil {
					t.Fatal(err)
				}
				for k, other := range all {
					err := n.Inspect(other.at(end.Side, end.Link))
					var d *Difference
					if k == i && err != nil {
						t.Errorf("inspecting: %v", err)
					} else if k != i && !errors.As(err, &d) {
						t.Errorf("%s\nis taken for %s: %v", s, other.at(end.Side, end.Link), err)
					}
				}
			}
		}
	})
}

// What is missing or changed is a difference that says so.
func TestShapersDifferences(t *testing.T) {
	needTC(t)
	onPair(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		simple := Shaper{Side: Host, Link: "veth0", Rate: 1_000_000, Burst: 32 << 10, Limit: 40000}
		sorting := simple
		sorting.Unshaped = prefixes("10.0.0.0/8", "fd00::/64")
		for _, c := range []struct {
			shaper  Shaper
			command string // with tc
			want    string
		}{
			{simple, "qdisc del dev veth0 root", "has no qdisc instead of the tbf"},
			{simple, "qdisc replace dev veth0 root bfifo limit 10000", "has bfifo instead of the tbf"},
			{simple, "qdisc change dev veth0 root handle 1: tbf rate 2mbit burst 32768 limit 40000", "rate 250000 instead of 125000 bytes per second"},
			{simple, "qdisc change dev veth0 root handle 1: tbf rate 1mbit burst 16384 limit 40000", "a burst other than 32768 bytes"},
			{simple, "qdisc change dev veth0 root handle 1: tbf rate 1mbit burst 32768 limit 50000", "a limit of 50000 bytes instead of 40000"},
			{sorting, "qdisc del dev veth0 root", "has no qdisc instead of the htb"},
			{sorting, "class change dev veth0 classid 1:1 htb rate 2mbit burst 32768 cburst 32768 quantum 60000", "rate 250000"},
			{sorting, "filter del dev veth0 parent 1: protocol ipv6 prio 15", "no filter for fd00::/64"},
			{sorting, "filter add dev veth0 parent 1: protocol ip prio 16 u32 match ip src 172.16.0.0/12 flowid 1:", "3 filters instead of 2"},
			{sorting, "qdisc replace dev veth0 root handle 2: tbf rate 1mbit burst 32768 limit 40000", "has tbf instead of the htb"},
		} {
			if err := n.Make(c.shaper); err != nil {
				t.Fatal(err)
			}
			if err := n.Inspect(c.shaper); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("tc", strings.Fields(c.command)...).CombinedOutput(); err != nil {
				t.Fatalf("tc %s: %v: %s", c.command, err, out)
			}
			var d *Difference
			if err := n.Inspect(c.shaper); !errors.As(err, &d) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("after tc %s: %v, want %q", c.command, err, c.want)
			}
		}
		gone := simple
		gone.Link = "veth9"
		var d *Difference
		if err := n.Inspect(gone); !errors.As(err, &d) {
			t.Errorf("without its interface: %v", err)
		}
	})
}

// The commands that a shaper shows make what it makes.
func TestShaperTextIsWhatMakesIt(t *testing.T) {
	needTC(t)
	onPair(t, func(n *Netlink, node *netlab.Node, pod *netlab.Namespace) {
		for _, s := range shapers() {
			s = s.at(Host, "veth0")
			if s.Burst == math.MaxUint32 {
				continue // tc reads no number of this size
			}
			_ = exec.Command("tc", "qdisc", "del", "dev", "veth0", "root").Run()
			for command := range strings.SplitSeq(s.String(), "; ") {
				if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", command, err, out)
				}
			}
			if err := n.Inspect(s); err != nil {
				t.Error(err)
			}
		}
	})
}

func needTC(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tc"); err != nil {
		t.Skip("needs the executable tc (Debian: iproute2)")
	}
}
