package measure

import (
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/processor"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// TestIdle measures a flatnetd to which nothing happens: notifications of its own
// changes that it took for somebody else's would keep it busy.
func TestIdle(t *testing.T) {
	if testing.Short() {
		t.Skip("with -test.short nothing is measured")
	}
	c := cluster.Start(t)
	c.OneSegment(cluster.Dual, 2)
	c.Start("--fabric", "vxlan")
	n := c.Node("n1")
	n.Pod("one")
	tasks := func() (sum float64) {
		for name, value := range n.Metrics() {
			if strings.HasPrefix(name, "flatnet_task_duration_seconds_count{") {
				sum += value
			}
		}
		return sum
	}
	// It has come to rest when two looks in a row see that nothing was done.
	for last, begin := -1.0, time.Now(); ; {
		now := tasks()
		if now == last {
			break
		}
		if time.Since(begin) > pace.Far() {
			t.Fatal("flatnetd does not come to rest: it always has something to do")
		}
		last = now
		time.Sleep(pace.Of(100 * time.Millisecond))
	}
	used := func() time.Duration {
		t.Helper()
		time, err := processor.Time(n.Pid())
		if err != nil {
			t.Fatal(err)
		}
		return time
	}
	begin, before, done := time.Now(), used(), tasks()
	time.Sleep(10 * time.Second)
	took := time.Since(begin)
	t.Logf("figure: flatnetd idle, %% of a processor: %.2f", 100*(used()-before).Seconds()/took.Seconds())
	t.Logf("figure: flatnetd idle, tasks in 10 s: %.0f", tasks()-done)
}
