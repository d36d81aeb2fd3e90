package crowd

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// source is a [policy.Source] that tells what it is given.
type source struct {
	changed chan struct{}
	batches chan policy.Batch
	known   atomic.Bool // it was given something
}

func newSource() *source {
	return &source{changed: make(chan struct{}, 1), batches: make(chan policy.Batch, 1)}
}

// tell gives the source what has changed. What came before has to be taken.
func (s *source) tell(b policy.Batch) {
	s.batches <- b
	s.known.Store(true)
	s.changed <- struct{}{}
}

// Changed implements [policy.Source].
func (s *source) Changed() <-chan struct{} { return s.changed }

// Take implements [policy.Source].
func (s *source) Take() policy.Batch {
	select {
	case b := <-s.batches:
		return b
	default:
		return policy.Batch{}
	}
}

// Known implements [policy.Source].
func (s *source) Known() bool { return s.known.Load() }

// Check implements [policy.Source].
func (s *source) Check() error { return nil }

// gate is a [policy.Gate] at which nobody waits.
type gate struct{}

// Tell implements [policy.Gate].
func (gate) Tell(map[string][2]bool, [2]bool) error { return nil }

// Closed implements [policy.Gate].
func (gate) Closed() ([]netip.Addr, error) { return nil, nil }

// Attached implements [policy.Gate].
func (gate) Attached() ([]policy.Attached, error) { return nil, nil }

// Admit implements [policy.Gate].
func (gate) Admit(_, _ []netip.Addr) error { return nil }

// Rest implements [policy.Gate].
func (gate) Rest() error { return nil }

// Evict implements [policy.Gate].
func (gate) Evict(...netip.Addr) error { return nil }

// Shut implements [policy.Gate].
func (gate) Shut(...netip.Addr) error { return nil }

// Refused implements [policy.Gate].
func (gate) Refused() (packets [2]uint64, err error) { return packets, nil }

// Keeping is a [policy.Controller] that keeps the policies of a crowd, in a network
// namespace and in this process.
type Keeping struct {
	source   *source
	observed chan observation
	end      context.CancelFunc
	ended    chan error
}

// observation is that something was written, or not.
type observation struct {
	at  time.Time
	err error
}

// Keep starts one that knows which pods are on its node, and nothing else yet.
func (c Crowd) Keep(space *netlab.Namespace) *Keeping {
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeping{source: newSource(), observed: make(chan observation, 1), end: cancel, ended: make(chan error, 1)}
	controller := policy.NewController(k.source, slog.New(slog.DiscardHandler))
	controller.Observe = func(o policy.Observation) {
		if o.Err != nil || o.Result.Objects+o.Result.Elements > 0 {
			k.observed <- observation{time.Now(), o.Err}
		}
	}
	controller.Gate = gate{}
	controller.Attach(c.Attached())
	go func() {
		k.ended <- space.Do(func() error {
			// Before everybody else: what the machine does besides is no part of what is
			// measured. It is left out where that takes rights that are missing.
			_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
			controller.Run(ctx)
			return nil
		})
	}()
	return k
}

// Tell tells of a change, and returns how long it takes until the kernel has it.
func (k *Keeping) Tell(b policy.Batch) (time.Duration, error) {
	begin := time.Now()
	k.source.tell(b)
	const patience = time.Minute
	select {
	case o := <-k.observed:
		return o.at.Sub(begin), o.err
	case <-time.After(patience):
		return 0, errors.New("the kernel was not told of a change")
	}
}

// Close ends the keeping. What it has written stays.
func (k *Keeping) Close() error {
	k.end()
	return <-k.ended
}
