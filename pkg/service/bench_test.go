package service

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

// size is a large cluster: 10,000 Services of 10 endpoints.
const (
	largeServices  = 10_000
	largeEndpoints = 10
)

func BenchmarkPlan(b *testing.B) {
	services := many(largeServices, largeEndpoints)
	b.ReportAllocs()
	for b.Loop() {
		Plan(nodeN(1), services)
	}
}

// BenchmarkPlanMemory says what a plan takes besides the Services.
func BenchmarkPlanMemory(b *testing.B) {
	services := many(largeServices, largeEndpoints)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var plans []*Ruleset
	for b.Loop() {
		plans = append(plans, Plan(nodeN(1), services))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(plans))/1e6, "MB/plan")
	runtime.KeepAlive(plans)
	runtime.KeepAlive(services)
}

// BenchmarkChange is one endpoint that is replaced by another, without nft: in one of
// 10,000 Services, and in one that has more and more endpoints.
func BenchmarkChange(b *testing.B) {
	b.Run("services=10000/endpoints=10", func(b *testing.B) {
		benchmarkChange(b, many(largeServices, largeEndpoints), many(1, largeEndpoints)[0])
	})
	for _, endpoints := range []int{100, 1_000, 5_000, 30_000} {
		b.Run(fmt.Sprintf("services=1/endpoints=%d", endpoints), func(b *testing.B) {
			s := sliced(endpoints)
			benchmarkChange(b, []Service{s}, s)
		})
	}
}

func benchmarkChange(b *testing.B, services []Service, changing Service) {
	p := NewPlanner(nodeN(1))
	for _, s := range services {
		p.Set(s)
	}
	p.Ruleset().take()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		changing = replaced(changing, n)
		p.Set(changing)
		if d := p.Ruleset().take().since(p.Ruleset()); len(d.tables) == 0 {
			b.Fatal("nothing changed")
		}
	}
}

// BenchmarkKernel is with nft and the kernel: a first sync, one endpoint's change,
// and a comparison of all.
func BenchmarkKernel(b *testing.B) {
	p := NewPlanner(nodeN(1))
	for _, s := range many(largeServices, largeEndpoints) {
		p.Set(s)
	}
	k, ns := labKeeper(b)
	sync := func(b *testing.B) {
		must(b, ns.Do(func() error {
			_, err := k.Sync(b.Context(), p.Ruleset())
			return err
		}))
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			must(b, ns.Do(func() error {
				k.tables.Forget()
				_, err := Remove()
				return err
			}))
			b.StartTimer()
			sync(b)
		}
	})
	b.Run("change", func(b *testing.B) {
		i := 0
		for b.Loop() {
			s := many(1, largeEndpoints)[0]
			s.Slices[0].Endpoints[9].Address = netip.AddrFrom4([4]byte{10, 250, 0, byte(i)})
			i++
			p.Set(s)
			sync(b)
		}
	})
	b.Run("verify", func(b *testing.B) {
		sync(b)
		sync(b)
		b.ReportAllocs()
		for b.Loop() {
			must(b, ns.Do(func() error {
				r, err := k.Verify(b.Context(), p.Ruleset())
				if r.Elements > 0 {
					b.Fatal(r)
				}
				return err
			}))
		}
	})
}
