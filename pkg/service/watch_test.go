package service

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error {
			return Watch(ctx, k, func() {
				told.Add(1)
				signal <- struct{}{}
			})
		})
	}()
	await := func(what string) {
		t.Helper()
		select {
		case <-signal:
		case <-time.After(10 * time.Second):
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
	cancel()
	must(t, <-ended)
	if told.Load() != 4 {
		t.Errorf("told %d times", told.Load())
	}
}
