package masquerade

import (
	"context"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// ear is a watcher whose messages the test itself passes on, so that it knows
// when all have been seen.
type ear struct {
	*watcher
	conn *netlink.Conn
	ask  *connection
	last uint32
}

func newEar(t *testing.T, keepers ...*Keeper) *ear {
	t.Helper()
	w, conn, err := listen(keepers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ask, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ask.close)
	e := &ear{watcher: w, conn: conn, ask: ask}
	if e.last, err = ask.generation(); err != nil {
		t.Fatal(err)
	}
	return e
}

// heard reports whether anything that happened up to now is worth a call.
func (e *ear) heard(t *testing.T) bool {
	t.Helper()
	now, err := e.ask.generation()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for e.last != now {
		messages, err := e.conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			e.see(m)
			if g, ok := generationFrom(m); ok {
				e.last = g.number
			}
		}
	}
	select {
	case <-e.dirty:
		return true
	default:
		return false
	}
}

func TestWatchTellsWhoseTransactionItWas(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		keeper, second := &Keeper{}, &Keeper{}
		exact, byName := newEar(t, keeper, second), newEar(t)
		c := full()
		plugins := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
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

func TestWatchAfterLostNotifications(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		e := newEar(t)
		if err := e.conn.SetReadBuffer(1); err != nil {
			t.Fatal(err)
		}
		other(t, node, "somebody", "unrelated")
		go e.receive(e.conn)
		select {
		case <-e.dirty:
		case <-time.After(30 * time.Second):
			t.Error("nobody was told")
		}
	})
}

func TestWatch(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		keeper := &Keeper{}
		want := Plan(full())
		apply(t, keeper, want, 1)
		ctx, cancel := context.WithCancel(context.Background())
		calls, ended := make(chan struct{}, 100), make(chan error, 1)
		go func() {
			ended <- node.Do(func() error {
				return Watch(ctx, func() { calls <- struct{}{} }, keeper)
			})
		}()
		for _, what := range []string{"", "flush ruleset", "delete table"} {
			if what != "" {
				other(t, node, "somebody", what)
			}
			select {
			case <-calls:
			case err := <-ended:
				t.Fatalf("ended: %v", err)
			case <-time.After(30 * time.Second):
				t.Fatalf("no call after %q", what)
			}
			if _, err := keeper.Verify(want); err != nil {
				t.Error(err)
			}
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("Watch does not end")
		}
	})
}

// A transaction of many objects is one call, and what comes during a call is
// one more.
func TestWatchCoalesces(t *testing.T) {
	inNode(t, func(node *netlab.Node) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		entered, leave := make(chan struct{}), make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- node.Do(func() error {
				return Watch(ctx, func() { entered <- struct{}{}; <-leave })
			})
		}()
		<-entered // it listens
		for range 5 {
			other(t, node, "somebody", "add plugin's table")
			other(t, node, "somebody", "flush ruleset")
		}
		leave <- struct{}{}
		<-entered
		cancel()
		leave <- struct{}{}
		select {
		case <-entered:
			t.Error("called again, though nothing happened")
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWatchSaysWhatItCannotDo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Watch(ctx, func() {}); err != nil {
		t.Errorf("a context that has ended: %v", err)
	}
	w, conn, err := listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := w.receive(conn); err == nil {
		t.Error("receiving from a closed socket is no error")
	}
}
