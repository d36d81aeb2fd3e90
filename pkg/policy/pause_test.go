package policy

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// What is asked in the pause between two syncs is answered by what the kernel has: a pod
// that was attached meanwhile is not among it.
func TestStatusDuringAPause(t *testing.T) {
	node := netlab.Start(t).Node("node")
	c := NewController(&handed{}, silent)
	refusal := errors.New("injected fault")
	c.keeper.Step = func(string) error { return refusal }
	c.failures = 20 // so the pause is the longest that there is
	first := Attached{Name: Name{"shop", "first"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	second := Attached{Name: Name{"shop", "second"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	paused := make(chan struct{})
	var once sync.Once
	c.Observe = func(Observation) {
		once.Do(func() {
			c.Attach([]Attached{first, second})
			close(paused)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- node.Do(func() error {
			c.Run(ctx)
			return nil
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c.Attach([]Attached{first})
	<-paused
	_, err := pace.Await(pace.Far(), func() error {
		// Both are ready for who selects, until the news is taken.
		if err := c.do(ctx, func() {}); err != nil {
			return err
		}
		if len(c.attached) > 0 {
			return errors.New("the news of the second pod is not taken")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []PodStatus
	if err := c.do(ctx, func() { all = c.statusOf(nil) }); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Pod != "shop/first" {
		t.Errorf("in the pause status speaks of %+v", all)
	}
}
