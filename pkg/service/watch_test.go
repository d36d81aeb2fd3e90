package service

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// monitor tells a listener of the namespace's nftables, until the function that it
// returns is called.
func monitor(t *testing.T, ns *netlab.Namespace, listener nft.Listener) (end func()) {
	t.Helper()
	var m *nft.Monitor
	must(t, ns.Do(func() (err error) {
		m, err = nft.NewMonitor(listener)
		return err
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestWatch: what others do is told, and what the keeper does is not.
func TestWatch(t *testing.T) {
	k, ns := labKeeper(t)
	p := NewPlanner(nodeN(1))
	services := many(50, 3)
	sync := func() {
		t.Helper()
		must(t, ns.Do(func() error {
			_, err := k.Sync(t.Context(), p.Ruleset())
			return err
		}))
	}
	for _, s := range services {
		p.Set(s)
	}
	sync()
	var told atomic.Int64
	signal := make(chan struct{}, 100)
	ended := monitor(t, ns, k.Watcher(func() {
		told.Add(1)
		signal <- struct{}{}
	}))
	await := func(what string) {
		t.Helper()
		select {
		case <-signal:
		case <-time.After(pace.Far()):
			t.Fatalf("%s was not told", what)
		}
	}
	await("the beginning")
	for i := range 20 {
		p.Set(many(50, 3+i%2)[i])
		sync()
	}
	must(t, ns.Do(func() error {
		_, err := k.Verify(t.Context(), p.Ruleset())
		return err
	}))
	if _, err := ns.Output("nft", "add table ip other; add chain ip other x"); err != nil {
		t.Fatal(err)
	}
	for i, damage := range []string{
		"flush map ip flatnet-services services",
		"add element ip6 flatnet-services own { 2001:db8::/64 }",
		"flush ruleset",
	} {
		before := told.Load()
		// Whoever comes right before or after, the other is not mistaken for it.
		if i == 1 {
			p.Set(many(50, 9)[0])
			sync()
		}
		if _, err := ns.Output("nft", damage); err != nil {
			t.Fatal(err)
		}
		await(damage)
		if told.Load() != before+1 {
			t.Errorf("%s was told %d times", damage, told.Load()-before)
		}
		must(t, ns.Do(func() error {
			r, err := k.Verify(t.Context(), p.Ruleset())
			if len(r.Found) == 0 {
				err = fmt.Errorf("%s: nothing was found", damage)
			}
			return err
		}))
	}
	ended()
	if told.Load() != 4 {
		t.Errorf("told %d times", told.Load())
	}
}

// TestWatchRestored: who restores a former state, with all that the keeper had made, is
// told, too.
func TestWatchRestored(t *testing.T) {
	k, ns := labKeeper(t)
	p := NewPlanner(nodeN(1))
	for _, s := range many(5, 3) {
		p.Set(s)
	}
	sync := func() (err error) { _, err = k.Sync(t.Context(), p.Ruleset()); return err }
	must(t, ns.Do(sync))
	signal := make(chan struct{}, 100)
	defer monitor(t, ns, k.Watcher(func() { signal <- struct{}{} }))()
	await := func(what string) {
		t.Helper()
		select {
		case <-signal:
		case <-time.After(pace.Far()):
			t.Fatalf("%s was not told", what)
		}
	}
	await("the beginning")
	p.Set(many(5, 4)[0])
	must(t, ns.Do(sync))
	if _, err := ns.Output("sh", "-c", "(echo flush ruleset; nft list ruleset) | nft -f -"); err != nil {
		t.Fatal(err)
	}
	await("what restores a former state")
	if len(signal) > 0 {
		t.Errorf("told %d times too often", len(signal))
	}
}
