package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkChurn measures what one attachment costs the allocator, at several
// numbers of reservations: opening the store, reserving, and releasing, as
// three processes would. It works on a tmpfs, as the default directory does.
func BenchmarkChurn(b *testing.B) {
	for _, family := range []struct {
		name    string
		subnets []string
	}{{"IPv4", []string{"10.0.0.0/15"}}, {"dual", []string{"10.0.0.0/15", "fd00::/64"}}} {
		for _, n := range []int{10, 1_000, 50_000} {
			b.Run(fmt.Sprintf("%s/%d", family.name, n), func(b *testing.B) {
				churn(b, family.subnets, n)
			})
		}
	}
}

func churn(b *testing.B, subnets []string, n int) {
	dir, err := os.MkdirTemp("/dev/shm", "ipam")
	if err != nil {
		b.Skip("no tmpfs: ", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	ctx := context.Background()
	var pool Pool
	for _, text := range subnets {
		r, err := NewRange(netip.MustParsePrefix(text))
		if err != nil {
			b.Fatal(err)
		}
		pool = append(pool, RangeSet{r})
	}
	request := func(i int) Request {
		return Request{
			Owner:   Owner{ContainerID: fmt.Sprintf("%064x", i), Interface: "eth0"},
			Sandbox: Sandbox{Path: fmt.Sprintf("/var/run/netns/cni-0e2bcb4c-9f8f-3c3f-9e3e-%012x", i), Device: 4, Inode: 4026532000 + uint64(i)},
			Pool:    pool,
		}
	}
	open := func() *Store {
		s, err := Open(Options{Directory: dir, Network: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	s := open()
	for i := range n {
		if _, err := s.Allocate(ctx, request(i)); err != nil {
			b.Fatal(err)
		}
	}
	verbs := []struct {
		name string
		do   func(s *Store, i int) error
	}{
		{"add-ns", func(s *Store, i int) error { _, err := s.Allocate(ctx, request(i)); return err }},
		{"lookup-ns", func(s *Store, i int) error { _, err := s.Lookup(ctx, request(i).Owner); return err }},
		{"status-ns", func(s *Store, i int) error { return s.HasFree(ctx, pool) }},
		{"del-ns", func(s *Store, i int) error { _, err := s.Release(ctx, request(i).Owner); return err }},
	}
	took := make([]int64, len(verbs))
	i := n
	for b.Loop() {
		for v, verb := range verbs {
			start := nanotime()
			s := open()
			if err := verb.do(s, i); err != nil {
				b.Fatal(err)
			}
			s.Close()
			took[v] += nanotime() - start
		}
		i++
	}
	for v, verb := range verbs {
		b.ReportMetric(float64(took[v])/float64(b.N), verb.name)
	}
}

func nanotime() int64 { return time.Now().UnixNano() }

// BenchmarkBurst is 64 at a time that reserve and release in one network. What
// matters is that waiting for the lock costs little beside having it.
func BenchmarkBurst(b *testing.B) {
	l := newLab(b)
	pool := poolOf(b, `[[{"subnet": "10.0.0.0/16"}]]`)
	s := l.open()
	var ids atomic.Int64
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			o := Owner{fmt.Sprint("c", ids.Add(1)), "eth0"}
			if _, err := s.Allocate(b.Context(), Request{Owner: o, Pool: pool}); err != nil {
				b.Error(err)
			}
			if _, err := s.Release(b.Context(), o); err != nil {
				b.Error(err)
			}
		}
	})
}
