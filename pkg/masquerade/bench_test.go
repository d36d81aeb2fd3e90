package masquerade

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// nodes makes the configuration of a cluster with two families.
func nodes(n int) Config {
	c := Config{IPv4: true, IPv6: true, Exempt: prefixes("192.168.0.0/16")}
	for i := range n {
		c.Pods = append(c.Pods, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00:244:0:%x::/64", i)))
		c.Nodes = append(c.Nodes, netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}),
			netip.MustParseAddr(fmt.Sprintf("fd00:30::%x", i+1)))
	}
	c.Own = c.Pods[:2]
	return c
}

// BenchmarkNodes measures what the table of many nodes costs: to make it, to
// plan and apply one node's change, to compare all of it.
func BenchmarkNodes(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		c := nodes(n)
		without := c
		without.Pods, without.Nodes = c.Pods[:2*n-2], c.Nodes[:2*n-2]
		run := func(name string, f func(b *testing.B)) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				inNode(b, func(*netlab.Node) { f(b) })
			})
		}
		run("plan", func(b *testing.B) {
			for b.Loop() {
				Plan(c)
			}
		})
		run("replan", func(b *testing.B) {
			var p Planner
			for i := 0; b.Loop(); i++ {
				p.Plan([]Config{without, c}[i%2])
			}
		})
		run("first", func(b *testing.B) {
			var total time.Duration
			for b.Loop() {
				k := &Keeper{}
				begin := time.Now()
				apply(b, k, Plan(c), -1)
				total += time.Since(begin)
				if _, err := k.Remove(); err != nil {
					b.Fatal(err)
				}
				k.Close()
			}
			b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "ms/sync")
		})
		run("change", func(b *testing.B) {
			k := &Keeper{}
			var p Planner
			apply(b, k, p.Plan(c), -1)
			for b.Loop() {
				apply(b, k, p.Plan(without), 4)
				apply(b, k, p.Plan(c), 4)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/2/float64(b.N), "ms/change")
		})
		run("verify", func(b *testing.B) {
			k := &Keeper{}
			want := Plan(c)
			apply(b, k, want, -1)
			for b.Loop() {
				if n, err := k.Verify(want); n != 0 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
