package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Controller balances the Services of a source on one node: it is all that an agent
// has to run.
type Controller struct {
	// Source tells of Services.
	Source Source
	// Keeper writes the tables.
	Keeper *Keeper
	// Resync is how often the tables are compared even if nothing happens;
	// 0 is never.
	Resync time.Duration
	// Observe is called by the controller's goroutine after every sync; nil for
	// nobody. It must not take long.
	Observe func(Observation)
	// Changed is called by the controller's goroutine when the summary has changed
	// in more than numbers; nil for nobody. It must not wait.
	Changed func()
	// Served is called by the controller's goroutine when rules are written, with what has
	// changed since; nil for nobody. It must not wait.
	Served func(Batch)
	// Reporter tells users of conflicts; nil for nobody but the log.
	Reporter Reporter
	Log      *slog.Logger

	nodes    loop.Latest[Node]
	requests loop.Calls
	touched  loop.Signal  // has an element where somebody has changed the tables
	synced   atomic.Bool  // the tables are what was last wanted
	asked    atomic.Int64 // when a sync was last asked for, but by the source; nanoseconds since 1970

	mu      sync.Mutex
	summary Summary

	// What follows belongs to the goroutine of Run.
	planner   *Planner
	health    *health
	conflicts map[Front]string // that were told
	failures  int              // in a row
	unserved  []Batch          // what Served was not called with yet
	last      Observation
	began     time.Time
}

// Observation is what happened in a sync.
type Observation struct {
	Result
	Duration time.Duration
	Verified bool // all was compared
	Err      error
	// Latencies are the times from changes of EndpointSlices, as the API says
	// when they happened, to their rules.
	Latencies []time.Duration
	// Services are balanced, by so many fronts.
	Services, Fronts int
	// Conflicts are fronts that several Services claim.
	Conflicts int
	at        time.Time // when it ended
}

// Reporter tells users that a Service does not have what it asks for.
type Reporter interface {
	Report(ctx context.Context, about Name, uid, reason, message string)
}

// NewController returns a controller that is not running. Nothing is written before
// the node is known.
func NewController(source Source, keeper *Keeper, log *slog.Logger) *Controller {
	return &Controller{
		Source: source, Keeper: keeper, Log: log, Resync: 5 * time.Minute,
		nodes: loop.NewLatest[Node](), requests: make(loop.Calls), touched: loop.NewSignal(), began: time.Now(), conflicts: map[Front]string{},
	}
}

// SetNode tells the facts about the node, at first and when they change. It does
// not wait for what follows.
func (c *Controller) SetNode(n Node) {
	c.noteAsked()
	c.nodes.Put(n)
}

func (c *Controller) noteAsked() { c.asked.Store(time.Now().UnixNano()) }

// Asked returns when somebody else than the source last had a reason for a sync: the
// node, whoever touched the tables, or the clock. It is zero if nobody had.
func (c *Controller) Asked() time.Time {
	if asked := c.asked.Load(); asked != 0 {
		return time.Unix(0, asked)
	}
	return time.Time{}
}

// Check returns nil while connections find their way, else why they may not.
func (c *Controller) Check() error {
	if !c.synced.Load() {
		return errors.New("balancing services: the rules have not been written yet, or could not be")
	}
	return nil
}

// The pauses of a controller.
const (
	// shortestPause is between two syncs, at least; longestPause at most.
	// Between them a pause is as long as what came before it took, so that
	// writing does not take more than half of a processor.
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
	// firstRetry and lastRetry are the pauses after failures.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// healthRetry is the pause until addresses that are in use are tried again.
	healthRetry = 10 * time.Second
)

// Watcher returns what has to be told of nftables' transactions, so that what others
// change is made right at once and not at the next resync.
func (c *Controller) Watcher() nft.Listener {
	return c.Keeper.Watcher(func() {
		c.noteAsked()
		c.touched.Give()
	})
}

// Run balances until ctx ends, in the network namespace of the calling thread. What
// it has written stays: connections go on finding their way.
func (c *Controller) Run(ctx context.Context) {
	c.health = newHealth(c.Log, func() bool { return c.Check() == nil })
	defer c.health.close()
	go c.Source.Run(ctx)
	c.loop(ctx)
}

// loop waits for reasons to sync.
func (c *Controller) loop(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var resync <-chan time.Time
	if c.Resync > 0 {
		ticker := time.NewTicker(c.Resync)
		defer ticker.Stop()
		resync = ticker.C
	}
	health := time.NewTicker(healthRetry)
	defer health.Stop()
	var triggered []time.Time
	var node *Node // what was told last, where the planner does not have it yet
	changed, verify, pausing := false, false, false
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-c.nodes:
			// The planner has it no sooner than the kernel: what is asked in a
			// pause is answered by the planner.
			if node, changed = &n, true; c.planner == nil {
				c.planner = NewPlanner(n)
			}
		case <-c.Source.Changed():
			changed = true
		case <-c.touched:
			verify = true
		case <-resync:
			c.noteAsked()
			verify = true
		case <-health.C:
			if len(c.health.failed) > 0 {
				c.health.apply(c.planner.health())
				c.summarize()
			}
		case f := <-c.requests:
			f()
		case <-pause.C:
			pausing = false
		}
		if pausing || !changed && !verify || c.planner == nil || !c.Source.Known() {
			continue
		}
		if node != nil {
			c.planner.SetNode(*node)
			node = nil
		}
		triggered = append(triggered, c.take()...)
		took, err := c.sync(ctx, verify, triggered)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// What has been taken is in the planner. All is compared again.
			pause.Reset(min(lastRetry, firstRetry<<min(c.failures, 10)))
			c.failures++
			changed, verify = true, true
		default:
			pause.Reset(max(shortestPause, min(took, longestPause)))
			c.failures = 0
			changed, verify, triggered = false, false, nil
		}
		pausing = true
	}
}

// take hands what the source has to the planner.
func (c *Controller) take() []time.Time {
	batch := c.Source.Take()
	if c.Served != nil {
		c.unserved = append(c.unserved, batch)
	}
	for _, name := range batch.Deleted {
		c.planner.Delete(name)
	}
	for _, s := range batch.Set {
		c.planner.Set(s)
	}
	return batch.Triggered
}

// sync makes the tables what is planned, and tells who wants to know.
func (c *Controller) sync(ctx context.Context, verify bool, triggered []time.Time) (time.Duration, error) {
	begin := time.Now()
	want := c.planner.Ruleset()
	o := Observation{Verified: verify, Services: c.planner.Services(), Fronts: len(want.fronts), Conflicts: len(c.planner.losers)}
	// What is new is written before all is compared, so that what is found then
	// is what somebody else did.
	if o.Result, o.Err = c.Keeper.Sync(ctx, want); verify && o.Err == nil && !o.compared {
		var more Result
		more, o.Err = c.Keeper.Verify(ctx, want)
		o.Elements, o.Objects, o.Found, o.Refused = o.Elements+more.Elements, o.Objects+more.Objects, append(o.Found, more.Found...), more.Refused
	}
	end := time.Now()
	o.Duration, o.at = end.Sub(begin), end
	c.synced.Store(o.Err == nil)
	if o.Err != nil {
		if c.failures == 0 && ctx.Err() == nil {
			c.Log.Error("rules of Services could not be written, trying again", "error", o.Err)
		}
	} else {
		for _, t := range triggered {
			if t.Before(c.began) {
				continue // nobody was here to follow it
			}
			o.Latencies = append(o.Latencies, max(0, end.Sub(t)))
		}
		if len(o.Found) > 0 {
			c.Log.Info("rules of Services repaired", "found", fmt.Sprint(o.Found), "elements", o.Elements)
		}
		// Load balancers are told after the rules are there.
		c.health.apply(c.planner.health())
		c.tellConflicts(ctx)
		for _, batch := range c.unserved {
			c.Served(batch)
		}
		c.unserved = nil
	}
	c.last = o
	c.summarize()
	if c.Observe != nil {
		c.Observe(o)
	}
	return o.Duration, o.Err
}

// tellConflicts tells of conflicts that are new.
func (c *Controller) tellConflicts(ctx context.Context) {
	if len(c.planner.losers) == 0 {
		clear(c.conflicts)
		return
	}
	seen := map[Front]bool{}
	for _, conflict := range c.planner.Conflicts() {
		seen[conflict.Front] = true
		for _, l := range conflict.Losers {
			if l.Name.Service == conflict.Holder.Name.Service {
				continue // it has asked twice for the same
			}
			message := fmt.Sprintf("%s port %d of %s leads to %s, which has it as %s: choose another address or port", l.Kind, conflict.Front.Port, conflict.Front.Address, conflict.Holder.Name, conflict.Holder.Kind)
			if c.conflicts[conflict.Front] == message {
				continue
			}
			c.conflicts[conflict.Front] = message
			c.Log.Warn("two Services claim one address and port", "service", l.Name.String(), "front", conflict.Front.String(), "holder", conflict.Holder.Name.String())
			if c.Reporter != nil {
				c.Reporter.Report(ctx, l.Name.Service, c.planner.services[l.Name.Service].service.UID, "AddressConflict", message)
			}
		}
	}
	for f := range c.conflicts {
		if !seen[f] {
			delete(c.conflicts, f)
		}
	}
}

// do calls f between two syncs. It fails where the controller is busy for longer
// than ctx allows.
func (c *Controller) do(ctx context.Context, f func()) error {
	if err := c.requests.Do(ctx, f); err != nil {
		return fmt.Errorf("balancing of services is busy: %w", err)
	}
	return nil
}
