package policy_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/test/bench/crowd"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// crowds are those that there are targets for, and one in which more pods are here.
var crowds = []crowd.Crowd{
	{Namespaces: 500, Policies: 1000, Pods: 10_000, Here: 30},
	{Namespaces: 500, Policies: 1000, Pods: 10_000, Here: 110},
	{Namespaces: 500, Policies: 1000, Pods: 100_000, Here: 30},
}

// sizes runs a benchmark with each crowd, on a node whose kernel has all of it. What it
// measures are changes: the n-th, from 1.
func sizes(b *testing.B, change func(crowd.Crowd, int) (policy.Batch, error)) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("pods=%d/here=%d", c.Pods, c.Here), func(b *testing.B) {
			k := c.Keep(netlab.Start(b).Namespace("node"))
			defer k.Close()
			tell(b, k, whole(b, c))
			n := 0
			for b.Loop() {
				b.StopTimer()
				n++
				batch, err := change(c, n)
				if err != nil {
					b.Fatal(err)
				}
				// One change is meant, and not one that waits for the end of another.
				time.Sleep(10 * time.Millisecond)
				b.StartTimer()
				tell(b, k, batch)
			}
		})
	}
}

func whole(b *testing.B, c crowd.Crowd) policy.Batch {
	b.Helper()
	all, err := c.Batch()
	if err != nil {
		b.Fatal(err)
	}
	return all
}

func tell(b *testing.B, k *crowd.Keeping, batch policy.Batch) {
	b.Helper()
	if _, err := k.Tell(batch); err != nil {
		b.Fatal(err)
	}
}

// From all that there is to know to the kernel's table.
func BenchmarkFirstSync(b *testing.B) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("pods=%d/here=%d", c.Pods, c.Here), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				k := c.Keep(netlab.Start(b).Namespace("node"))
				batch := whole(b, c)
				runtime.GC()
				b.StartTimer()
				tell(b, k, batch)
				b.StopTimer()
				k.Close()
				b.StartTimer()
			}
		})
	}
}

// From a pod's event to the kernel's set.
func BenchmarkOnePodMore(b *testing.B) {
	sizes(b, func(c crowd.Crowd, n int) (policy.Batch, error) { return c.MorePod(n - 1), nil })
}

// From a policy's event to the kernel's chain.
func BenchmarkOnePolicyChanged(b *testing.B) {
	sizes(b, func(c crowd.Crowd, n int) (policy.Batch, error) { return c.Changed(n) })
}
