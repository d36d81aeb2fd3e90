package masquerade

import (
	"context"
	"sync"
	"testing"

	"github.com/google/nftables"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// ear is a watcher that knows up to which generation it has been told.
type ear struct {
	*Watcher
	ask *nft.Conn

	mu    sync.Mutex
	last  uint32
	more  *sync.Cond
	calls int
}

func newEar(t *testing.T, keepers ...*Keeper) *ear {
	t.Helper()
	e := &ear{}
	e.more = sync.NewCond(&e.mu)
	var err error
	if e.Watcher, err = NewWatcher(func() { e.calls++ }, keepers...); err != nil {
		t.Fatal(err)
	}
	if e.ask, err = nft.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.ask.Close)
	m, err := nft.NewMonitor(e)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.calls == 0 {
		e.more.Wait()
	}
	e.calls = 0
	e.last = e.generation(t)
	return e
}

func (e *ear) generation(t *testing.T) uint32 {
	t.Helper()
	now, err := e.ask.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func (e *ear) Missed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Watcher.Missed()
	e.more.Broadcast()
}

func (e *ear) Commit(c nft.Commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Watcher.Commit(c)
	e.last = c.Generation
	e.more.Broadcast()
}

// heard reports whether anything that happened up to now was worth a call.
func (e *ear) heard(t *testing.T) bool {
	t.Helper()
	now := e.generation(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.last != now {
		e.more.Wait()
	}
	called := e.calls > 0
	e.calls = 0
	return called
}

func TestWatchTellsWhoseTransactionItWas(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		keeper, second := &Keeper{}, &Keeper{}
		exact, byName := newEar(t, keeper, second), newEar(t)
		c := full()
		plugins := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableID.Name}
		const otherName = "somebody"
		for _, step := range []struct {
			what          string
			do            func()
			exact, byName bool
		}{
			{"keeper makes the table", func() { apply(t, keeper, Plan(c), -1) }, false, false},
			{"keeper changes an element", func() {
				c.Nodes = addresses("172.30.0.9")
				apply(t, keeper, Plan(c), -1)
			}, false, false},
			{"another process, unrelated", func() { other(t, node, otherName, "unrelated") }, false, false},
			{"another process makes the plugin's table", func() { other(t, node, otherName, "add plugin's table") }, true, true},
			{"this process makes the plugin's table", func() { write(t, func(c *nftables.Conn) { c.AddTable(plugins) }) }, false, false},
			{"another process flushes the ruleset", func() { other(t, node, otherName, "flush ruleset") }, true, true},
			{"keeper repairs", func() {
				if n, err := keeper.Verify(Plan(c)); n != 1 || err != nil {
					t.Errorf("%d repairs, %v", n, err)
				}
			}, false, false},
			{"another process of the same name deletes the table", func() { other(t, node, exact.name, "delete table") }, true, false},
			{"second keeper repairs", func() { apply(t, second, Plan(c), 1) }, false, false},
			{"this process, but no keeper, deletes the table", func() {
				write(t, func(c *nftables.Conn) { c.DelTable(table()) })
			}, true, false},
			{"second keeper removes nothing", func() {
				if _, err := second.Remove(); err != nil {
					t.Error(err)
				}
			}, false, false},
		} {
			step.do()
			if got := exact.heard(t); got != step.exact {
				t.Errorf("%s: knowing the keepers, %t, want %t", step.what, got, step.exact)
			}
			if got := byName.heard(t); got != step.byName {
				t.Errorf("%s: knowing the name, %t, want %t", step.what, got, step.byName)
			}
		}
	})
}
