package kubectl

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Of 5,000 nodes each is asked once, so many at a time as may be, and never more: the
// nodes wait until as many are asked, so that fewer would wait for good.
func TestBoundedParallelism(t *testing.T) {
	const nodes, parallel = 5000, 64
	l := newLab(t, nodes)
	var now, most atomic.Int64
	var asked sync.Map
	full := make(chan struct{})
	var fill sync.Once
	o := takeOverview(t.Context(), "test", l.look(t), asker{executes(func(ctx context.Context, in container, _ ...string) ([]byte, error) {
		defer now.Add(-1)
		n := now.Add(1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		if n == parallel {
			fill.Do(func() { close(full) })
		}
		select {
		case <-full:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		node := strings.TrimPrefix(in.Pod, "flatnetd-")
		if _, twice := asked.LoadOrStore(node, true); twice {
			t.Errorf("%s is asked twice", node)
		}
		return json.Marshal(fine(node))
	}), parallel, time.Minute})
	if got := most.Load(); got != parallel {
		t.Errorf("%d are asked at a time, want %d", got, parallel)
	}
	if len(o.Nodes) != nodes || o.exit() != exitFine {
		t.Errorf("%d nodes, exit status %d: %s", len(o.Nodes), o.exit(), o.headline())
	}
}

func TestNatural(t *testing.T) {
	sorted := []string{"", "a", "a1", "a2", "a02", "a10", "a10b", "b", "node-9.x", "node-10.x"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := natural(a, b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("natural(%q, %q) is %d", a, b, got)
			}
		}
	}
}
