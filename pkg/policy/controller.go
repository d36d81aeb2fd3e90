package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/nflog"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Controller keeps the rules of the policies of one node's pods: it is all that an
// agent has to run.
type Controller struct {
	// Resync is how often the table is compared even if nothing happens; 0 is never.
	Resync time.Duration
	// Observe is called by the controller's goroutine after every sync; nil for nobody.
	// It must not take long.
	Observe func(Observation)
	// Gate closes new pods until their rules are in place; nil where nobody does.
	Gate Gate
	// LogDrops logs what is refused, ten packets a second at most.
	LogDrops bool
	// Sysctls is where the node's sysctls are files; "" for /proc/sys.
	Sysctls string
	// KeepFlows leaves connections that a change forbids alone, where the kernel cannot
	// forget any.
	KeepFlows bool

	source   Source
	log      *slog.Logger
	keeper   *nft.Keeper
	forget   forgetter
	attached loop.Latest[[]Attached]
	requests loop.Calls
	dropped  chan nflog.Packet
	touched  loop.Signal // has an element where somebody has changed the table
	knocked  loop.Signal // has an element where somebody may have been closed
	summary  atomic.Pointer[Summary]

	endedFlows atomic.Uint64

	// What follows belongs to the goroutine of Run.
	world    *world
	plan     *plan
	ended    *ended
	known    bool // which pods are attached
	knocks   bool // somebody may be closed
	shut     bool // somebody was
	departed bool // a pod may have left that packets are counted of
	untold   bool // the gate does not have the list of what is planned
	tighter  bool // what was allowed may be refused now
	lacking  []Lack
	failures int // in a row
}

// Gate keeps new pods from sending and receiving until their rules are in place.
type Gate interface {
	// Tell says in which directions new pods of which namespaces are to be closed. The
	// zero value of others is for namespaces that are not in the list.
	Tell(closed map[string][len(Directions)]bool, others [len(Directions)]bool) error
	// Closed returns the addresses that are closed.
	Closed() ([]netip.Addr, error)
	// Attached returns which pods are attached to the node now. One that is closed is
	// among them: it is recorded before.
	Attached() ([]Attached, error)
	// Admit opens some, and has the rules hold again for others, which were evicted.
	Admit(open, readmit []netip.Addr) error
	// Evict says that somebody new has addresses, of whom the rules do not know.
	Evict(addresses ...netip.Addr) error
	// Shut closes addresses that somebody new has, in both directions.
	Shut(addresses ...netip.Addr) error
	// Refused returns how many packets of closed pods were dropped, by direction.
	Refused() ([len(Directions)]uint64, error)
	// Rest is called when nobody has been closed for a while: what packets pass for the
	// sake of those who are may go.
	Rest() error
}

// Observation is what happened in a sync.
type Observation struct {
	Duration time.Duration
	Result   nft.Result
	Repaired int // that others had changed
	Opened   int // addresses
	Err      error
}

// wrote adds what was written.
func (o *Observation) wrote(r nft.Result) {
	o.Result.Elements += r.Elements
	o.Result.Objects += r.Objects
	o.Result.Unused = r.Unused
}

// NewController returns a controller that is not running. Nothing is written before
// the source knows everything and the node's pods are known.
func NewController(source Source, log *slog.Logger) *Controller {
	c := &Controller{
		Resync: 5 * time.Minute, source: source, log: log, keeper: &nft.Keeper{Keeps: []nft.ID{tableID}, Log: log}, forget: conntrack.ForgetFlows,
		attached: loop.NewLatest[[]Attached](), requests: make(loop.Calls), dropped: make(chan nflog.Packet, 16), touched: loop.NewSignal(), knocked: loop.NewSignal(),
		world: newWorld(), ended: newEnded(),
	}
	c.summary.Store(&Summary{})
	return c
}

// Attach tells which pods are attached to the node: all of them. It does not wait for
// what follows.
func (c *Controller) Attach(all []Attached) {
	c.attached.Put(all)
}

// Watcher returns what has to be told of nftables' transactions, so that what others
// change is made right at once and not at the next resync.
func (c *Controller) Watcher() nft.Listener {
	return &nft.Watcher{
		Tables: []nft.ID{tableID}, Own: c.keeper.Port, Changed: c.touched.Give,
		Common: []string{closed.Evicted(false).Name, closed.Evicted(true).Name}, Added: c.Knock,
	}
}

// Knock says that a pod may have been closed, and may be opened if its rules are in
// place. It does not wait.
func (c *Controller) Knock() { c.knocked.Give() }

// The pauses of a controller.
const (
	// shortestPause is between two syncs, at least; longestPause at most. Between them a
	// pause is as long as what came before it took.
	shortestPause = 2 * time.Millisecond
	longestPause  = time.Second
	// firstRetry and lastRetry are the pauses after failures.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
	// flowPause is between a change and the look for connections that are no longer
	// allowed, at least: what changes at the same time is looked for once. Where a look
	// takes long, the pause is longerFlowPause times as long, so that looking does not
	// take much of a processor.
	flowPause       = 200 * time.Millisecond
	longerFlowPause = 5
	// restPause is how long nobody has to be closed for [Gate.Rest]: pods come in bursts.
	restPause = 10 * time.Second
	// tidyPause is between a change and the removal of the chains that it has emptied: what
	// led to them is gone by then, for every kernel.
	tidyPause = time.Second
)

// Run keeps the rules until ctx ends, in the network namespace of the calling thread.
// What it has written stays.
func (c *Controller) Run(ctx context.Context) {
	defer c.keeper.Close()
	c.ended.look(c.keeper)
	c.world.logs = c.LogDrops
	if c.KeepFlows {
		c.forget = nil
	}
	if c.LogDrops {
		go c.listen(ctx)
	}
	pause, flows, tidy, rest := time.NewTimer(0), time.NewTimer(0), time.NewTimer(0), time.NewTimer(restPause)
	defer pause.Stop()
	defer flows.Stop()
	defer tidy.Stop()
	defer rest.Stop()
	flows.Stop()
	tidy.Stop()
	var resync <-chan time.Time
	if c.Resync > 0 {
		ticker := time.NewTicker(c.Resync)
		defer ticker.Stop()
		resync = ticker.C
	}
	changed, verify, look, pausing := false, false, false, false
	looking, tidying := false, false // the timers of flows and of tidy run
	var attached *[]Attached         // as told last, where the world does not have it yet
	var looked time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case all := <-c.attached:
			// The world has it no sooner than the kernel: what is asked in a pause is
			// answered by the world.
			attached = &all
			c.known, c.knocks, c.departed, changed = true, true, true, true
		case <-c.source.Changed():
			changed = true
		case <-c.touched:
			verify = true
		case <-c.knocked:
			c.knocks = true
		case <-resync:
			c.knocks, verify, look = true, true, true
		case f := <-c.requests:
			f()
		case p := <-c.dropped:
			c.logDrop(p)
		case <-flows.C:
			look, looking = true, false
		case <-rest.C:
			if err := c.rest(); err != nil {
				c.log.Warn("what new pods pass while they are closed could not be removed, trying again", "error", err)
				rest.Reset(restPause)
			}
		case <-tidy.C:
			tidying = false
			c.tidy()
		case <-pause.C:
			pausing = false
		}
		if pausing || !(changed || verify || c.knocks || look) || !c.known || !c.source.Known() {
			continue
		}
		begin := time.Now()
		if attached != nil {
			c.world.attach(*attached)
			attached = nil
		}
		o := c.sync(ctx, changed, verify)
		if o.Err == nil && look {
			beginLook := time.Now()
			o.Err = c.end(func() error { return c.write(ctx, &o, false) })
			look, looked = false, time.Since(beginLook)
		}
		o.Duration = time.Since(begin)
		if ctx.Err() != nil {
			return
		}
		if c.shut {
			c.shut = false
			rest.Reset(restPause)
		}
		c.observe(o)
		if o.Err != nil {
			pause.Reset(min(lastRetry, firstRetry<<min(c.failures, 10)))
			c.failures++
			changed, verify, look = true, true, true
		} else {
			pause.Reset(max(shortestPause, min(o.Duration, longestPause)))
			if c.tighter && !looking {
				flows.Reset(max(flowPause, min(longerFlowPause*looked, longestPause)))
				looking = true
			}
			c.tighter = false
			if o.Result.Unused > 0 && !tidying {
				tidy.Reset(tidyPause)
				tidying = true
			}
			c.failures = 0
			changed, verify = false, false
		}
		pausing = true
	}
}

// sync makes the table what the policies say, and then opens the pods that wait for it.
func (c *Controller) sync(ctx context.Context, changed, verify bool) (o Observation) {
	if changed {
		c.world.apply(c.source.Take())
	}
	if c.plan == nil || c.world.stirred {
		c.plan = c.world.replan()
		c.untold, c.tighter = true, true
	}
	// A pod that is attached from now on is closed, if a policy may select it, before
	// that has rules.
	if c.untold {
		if o.Err = c.tell(); o.Err != nil {
			return o
		}
		c.untold = false
	}
	if o.Err = c.write(ctx, &o, verify); o.Err == nil && c.knocks {
		o.Opened, o.Err = c.open()
	}
	if o.Err == nil && c.departed {
		c.departed = false
		o.Err = c.forgetCounters()
	}
	return o
}

// write makes the table what is planned.
func (c *Controller) write(ctx context.Context, o *Observation, verify bool) error {
	want := c.plan.tables(c.world, c.ended)
	deltas := c.world.takeChanges()
	for _, d := range deltas {
		c.tighter = c.tighter || len(d.Deleted) > 0 || c.plan.denies && len(d.Added) > 0
	}
	deltas = append(deltas, c.ended.take()...)
	r, compared, err := c.keeper.Sync(ctx, want, deltas...)
	o.wrote(r)
	if err == nil {
		c.ended.left = false // or they are among ours now
	}
	if compared {
		c.lack()
	}
	if err != nil || compared || !verify {
		c.tighter = c.tighter || compared // something may have begun that was not asked about
		return err
	}
	r, err = c.keeper.Verify(ctx, want)
	o.wrote(r)
	o.Result.Found, o.Repaired = r.Found, r.Count
	c.lack()
	c.tighter = c.tighter || r.Count > 0
	return err
}

// lack finds out what is not in force: with a comparison, after which it is known anew what
// the kernel refuses.
func (c *Controller) lack() {
	c.lacking = lacks(c.keeper.Refused(tableID), findIPVS("/proc/thread-self/net", cmp.Or(c.Sysctls, "/proc/sys")))
}

// tidy removes the chains that no pod uses any more.
func (c *Controller) tidy() {
	if _, err := c.keeper.Tidy(); err != nil {
		c.log.Debug("chains that no pod uses any more stay for now", "error", err)
	}
}

// takeChanges returns what has changed of the groups that the kernel has.
func (w *world) takeChanges() (all []nft.Delta) {
	for key, c := range w.changed {
		for _, f := range families {
			d := nft.Delta{Table: tableID, Set: key.name(f)}
			for k, of := range c.deleted {
				if of == f {
					d.Deleted = append(d.Deleted, nft.Element{Key: k})
				}
			}
			for k, of := range c.added {
				if of == f {
					d.Added = append(d.Added, nft.Element{Key: k})
				}
			}
			if len(d.Added)+len(d.Deleted) > 0 {
				all = append(all, d)
			}
		}
	}
	clear(w.changed)
	return all
}

// tell says which new pods are to be closed.
func (c *Controller) tell() error {
	if c.Gate == nil {
		return nil
	}
	closed := map[string][len(Directions)]bool{}
	for name := range c.world.subjects {
		if name != "" {
			closed[name] = c.world.closed(name)
		}
	}
	others := c.world.closed("") // of a namespace that is not known
	if others != ([len(Directions)]bool{}) {
		for name := range c.world.namespaces {
			closed[name] = c.world.closed(name)
		}
	}
	return c.Gate.Tell(closed, others)
}

// open opens the pods whose rules are in place. That an address is known does not do: it
// may be closed for the next one that has it, of whom the news is still to come, and then
// the rules are those of the one before. With the news come the rules, and it is opened.
//
// Those that are evicted are so no longer, for the same reason.
func (c *Controller) open() (int, error) {
	c.knocks = false
	if c.Gate == nil {
		return 0, nil
	}
	n, err := c.admit()
	if err != nil {
		c.knocks = true
		return 0, err
	}
	return n, nil
}

// rest leaves nothing in packets' way for the sake of nobody.
func (c *Controller) rest() error {
	if c.Gate == nil {
		return nil
	}
	return c.Gate.Rest()
}

// admit has those in who wait, as far as the rules are theirs.
func (c *Controller) admit() (opened int, err error) {
	shut, err := c.Gate.Closed()
	if err != nil {
		return 0, err
	}
	c.shut = c.shut || len(shut) > 0
	evicted, err := c.evicted()
	if err != nil || len(shut)+len(evicted) == 0 {
		return 0, err
	}
	now, err := c.Gate.Attached() // after these: who is closed then is among them
	if err != nil {
		return 0, err
	}
	ruled := c.world.ruled(now)
	// One that nobody has is the API server's to speak of. Of one that is closed the
	// next one may be about to have it.
	evicted = slices.DeleteFunc(evicted, func(a netip.Addr) bool { is, recorded := ruled[a]; return recorded && !is })
	shut = slices.DeleteFunc(shut, func(a netip.Addr) bool { return !ruled[a] })
	if err := c.Gate.Admit(shut, evicted); err != nil {
		return 0, err
	}
	return len(shut), c.recall(evicted, shut)
}

func (c *Controller) observe(o Observation) {
	if o.Err != nil && c.failures == 0 {
		c.log.Error("rules of policies could not be written, trying again", "error", o.Err)
	}
	if len(o.Result.Found) > 0 {
		c.log.Info("rules of policies repaired", "found", fmt.Sprint(o.Result.Found))
	}
	c.summarize(o.Err)
	if c.Observe != nil {
		c.Observe(o)
	}
}

// do calls f between two syncs. It fails where the controller is busy for longer than
// ctx allows.
func (c *Controller) do(ctx context.Context, f func()) error {
	if err := c.requests.Do(ctx, f); err != nil {
		return fmt.Errorf("the keeping of policies is busy: %w", err)
	}
	return nil
}

// Check returns nil while the rules are what the policies say, else why they may not be.
func (c *Controller) Check() error {
	s := c.summary.Load()
	switch {
	case s.Failure != "":
		return errors.New("rules of policies could not be written: " + s.Failure)
	case !s.Synced:
		return errors.New("rules of policies are not written yet")
	}
	return c.source.Check()
}

// Remove deletes the table in the caller's network namespace, and reports whether it
// was there.
// Equivalent to: `nft delete table inet flatnet-policy`.
func Remove() (bool, error) {
	k := &nft.Keeper{Keeps: []nft.ID{tableID}}
	defer k.Close()
	all, err := k.Remove()
	if err != nil {
		return false, fmt.Errorf("removing nftables table %s: %w", tableID, err)
	}
	return len(all) > 0, nil
}

// own returns the node's own addresses: what it sends itself, and what is for itself,
// no policy has a say about.
func own() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	set := map[netip.Addr]bool{}
	for _, a := range all {
		if n, is := a.(*net.IPNet); is {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				set[ip.Unmap()] = true
			}
		}
	}
	return set, nil
}
