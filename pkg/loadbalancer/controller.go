package loadbalancer

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Services are those that a [Controller] gives addresses to: [Source] has them.
type Services interface {
	Known() bool
	Services() []*Service
	// Catch brings what is known up to what the API server has now.
	Catch(context.Context) error
	// Assume notes what was written of a Service, before the watch brings it.
	Assume(*Service, []netip.Addr)
}

// Writer changes the status of a Service.
type Writer interface {
	PatchServiceStatus(ctx context.Context, namespace, name string, patch []byte) error
}

// Leader knows whether this agent is the one that gives addresses.
type Leader interface {
	// Until is when it no longer is, the zero time where it is not.
	Until() (until, from time.Time)
	// Lapses counts how often it was not, and is again.
	Lapses() uint64
}

// Controller gives addresses while it leads.
type Controller struct {
	Services Services
	Writer   Writer
	Leader   Leader
	Reporter service.Reporter
	Log      *slog.Logger
	// Changed are given after a change of the Services, of who leads.
	Changed []loop.Signal
	// Wrote is called after a status was written, or could not be.
	Wrote func(error)

	writers int // at a time

	config loop.Latest[*Config]
	state  atomic.Pointer[State]
	led    bool
	lapses uint64
	told   map[string]string // what a Service was told last, by its UID
	events events
}

// State is what the controller has come to.
type State struct {
	Leads   bool
	Waiting []Waiting // Services without all their addresses, by name
	Given   int       // Services that have all
	Failure string    // why a status could not be written
	// InUse are the addresses of each pool that are taken, by family.
	InUse map[string]map[Family]int
}

// Waiting is a Service that does not have all that it should.
type Waiting struct {
	Service service.Name `json:"-"`
	Name    string       `json:"service"`
	Reason  string       `json:"reason"`
}

// NewController returns one without a configuration.
func NewController() *Controller {
	c := &Controller{writers: writers, config: loop.NewLatest[*Config](), told: map[string]string{}}
	c.state.Store(&State{})
	return c
}

// SetConfig has the controller go by another configuration.
func (c *Controller) SetConfig(config *Config) { c.config.Put(config) }

// State returns what it has come to.
func (c *Controller) State() State { return *c.state.Load() }

const (
	writeTimeout = 5 * time.Second
	writers      = 8 // at a time
	again        = 250 * time.Millisecond
	longestAgain = 30 * time.Second
	eventsAgain  = 10 * time.Second
)

// Run gives addresses until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	wake := loop.Any(ctx, c.Changed...)
	var config *Config
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case config = <-c.config:
		case <-wake:
		case <-timer.C:
		}
		if config == nil {
			continue
		}
		more, err := c.pass(ctx, config)
		switch {
		case err != nil:
			failures++
			timer.Reset(min(longestAgain, again<<min(failures, 8)))
		case more:
			failures = 0
			wake.Give()
		case c.events.held:
			failures = 0
			c.events.held = false
			timer.Reset(eventsAgain)
		default:
			failures = 0
		}
	}
}

// pass brings all Services nearer to what they are to have. There is more to do where
// an address was given back, which somebody else may wait for.
func (c *Controller) pass(ctx context.Context, config *Config) (more bool, err error) {
	until, _ := c.Leader.Until()
	if !time.Now().Before(until) || !c.Services.Known() {
		if c.led {
			c.Log.Info("another agent gives addresses to Services now")
		}
		c.led = false
		c.state.Store(&State{})
		return false, nil
	}
	if lapses := c.Leader.Lapses(); lapses != c.lapses {
		c.led, c.lapses = false, lapses
	}
	if !c.led {
		// The one before may have written what the watch has not brought yet.
		limited, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		if err := c.Services.Catch(limited); err != nil {
			return false, err
		}
		c.led = true
		clear(c.told)
		c.Log.Info("this agent gives addresses to Services")
	}
	decisions := Allocate(config, c.Services.Services())
	state := State{Leads: true}
	var writing sync.WaitGroup
	var mu sync.Mutex
	free := make(chan struct{}, c.writers)
	for _, d := range decisions {
		if !d.Changes() {
			continue
		}
		free <- struct{}{}
		writing.Go(func() {
			defer func() { <-free }()
			wrong := c.write(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			if wrong != nil {
				err, state.Failure = wrong, wrong.Error()
			}
			more = more || len(d.Lost) > 0 // somebody may wait for it
		})
	}
	writing.Wait()
	var given []netip.Addr
	for _, d := range decisions {
		if d.Waits != "" {
			state.Waiting = append(state.Waiting, Waiting{d.Service.Name, d.Service.Name.String(), d.Waits})
		} else if config.Ours(d.Service) {
			state.Given++
		}
		c.tell(ctx, d)
		given = append(given, d.Addresses...)
	}
	state.InUse = config.inUse(given)
	c.state.Store(&state)
	if err != nil {
		c.led = false // something may have been written all the same: look before the next time
	}
	return more, err
}

// CountHeld is a State for who does not give addresses: only what is taken is known.
func CountHeld(c *Config, all []*Service) State {
	var held []netip.Addr
	for _, s := range all {
		if c.Ours(s) {
			held = append(held, s.Held...)
		}
	}
	return State{InUse: c.inUse(held)}
}

// inUse counts addresses, each once, by pool and family.
func (c *Config) inUse(all []netip.Addr) map[string]map[Family]int {
	counts := map[string]map[Family]int{}
	slices.SortFunc(all, netip.Addr.Compare)
	for _, ip := range slices.Compact(all) {
		pool := c.Pool(ip)
		if pool == nil {
			continue
		}
		if counts[pool.Name] == nil {
			counts[pool.Name] = map[Family]int{}
		}
		counts[pool.Name][familyOf(ip)]++
	}
	return counts
}
