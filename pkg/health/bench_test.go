package health

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// BenchmarkThousandPeers is what probes cost in a cluster of 1,000 nodes that all answer,
// of a processor and in packets a second: go test -bench Thousand -benchtime 30x, of which
// each is a second.
func BenchmarkThousandPeers(b *testing.B) {
	lab := netlab.Start(b)
	segment := lab.Segment("a")
	one, others := lab.Node("one", segment.Port("172.30.0.1/24")), lab.Node("others", segment.Port("172.30.0.2/24"))
	for n, commands := range map[*netlab.Node]string{
		one: "ip route add local 10.200.0.1 dev lo; ip route add 10.0.0.0/12 via 172.30.0.2", others: "ip route add local 10.0.0.0/12 dev lo; ip route add 10.200.0.1 via 172.30.0.1",
	} {
		if _, err := n.Output("sh", "-ec", commands); err != nil {
			b.Fatal(err)
		}
	}
	answers := 0
	p := NewProber("own", func() {}, func(time.Duration) { answers++ })
	if err := one.Do(func() error {
		n, err := Open(netip.MustParseAddr("10.200.0.1"))
		p.SetNetwork(false, n)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	var targets []Target
	for i := range 1000 {
		t := target(i)
		t.Size = 1500
		targets = append(targets, t)
	}
	p.SetTargets(targets, time.Now())
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	before, begin := used(b), time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	took := time.Since(begin)
	b.ReportMetric(100*(used(b)-before).Seconds()/took.Seconds(), "%-of-a-processor")
	stop()
	running.Wait()
	b.ReportMetric(float64(answers)/took.Seconds(), "answers/s")
	if c := p.Counts(); c.Lost > 0 {
		b.Errorf("%d probes were lost", c.Lost)
	}
}

// used is the processor's time that this process has taken.
func used(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
