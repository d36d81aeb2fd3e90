package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// features are what flatnetd does, in the order in which one relies on another: so
// they are opened, their tasks are done, and they appear in the status.
func features(c Config, client *apiwatch.Client, s *feature.Shared) []feature.Feature {
	book, watch := service.NewBook(), service.NewWatch(client, s.Log)
	return []feature.Feature{
		newFabric(c, client, s).feature(),
		newMasquerading(c, s).feature(),
		newPods(c, s).feature(),
		newHostPorts(c, s).feature(),
		newProbing(c, s).feature(),
		newPeers(s).feature(),
		newHostKeeping(c, s).feature(),
		newInstallation(c, s).feature(),
		newServices(c, client, watch, book, s).feature(),
		newBGP(c, client, watch, book, s).feature(),
		newBalancers(c, client, watch, s).feature(),
		newPolicies(c, client, s).feature(),
		newFastPath(c, s).feature(),
		newKernelKeeping(c, s).feature(),
		newCollection(c, s).feature(),
		newMemory(s),
	}
}

// Agent is flatnetd on one node. It has features, and knows nothing of what they do.
type Agent struct {
	config   Config
	log      *slog.Logger
	began    time.Time
	shared   *feature.Shared
	features []feature.Feature
	schedule feature.Schedule
	metrics  *metrics
	news     *news
	requests loop.Calls // that are done between tasks
	told     told       // problems, to the log
}

// New prepares an agent that works in the caller's network namespace. The client is
// not used where nodes come from a file and Services are not balanced.
func New(c Config, client *apiwatch.Client, log *slog.Logger) (*Agent, error) {
	a := newAgent(c, log)
	a.shared.Kernel = askKernel(requirements.Running{}, c.parts())
	a.shared.Filters = c.Datapath != datapathKernel && !fastpath.HasLinks()
	a.shared.Optional = requirements.Check(requirements.Running{}, c.optional()...)
	if err := a.open(features(c, client, a.shared)); err != nil {
		return nil, err
	}
	return a, nil
}

// newAgent returns an agent that has no features yet.
func newAgent(c Config, log *slog.Logger) *Agent {
	a := &Agent{config: c, log: log, began: time.Now(), metrics: newMetrics(c), news: newNews(), requests: make(loop.Calls), told: told{}}
	a.shared = &feature.Shared{
		Log: log, Publish: a.publish, Do: a.do, Rest: func() {}, Decide: func() {},
		Repaired: func(object string, count int) { a.metrics.repairs.WithLabelValues(object).Add(float64(count)) },
	}
	return a
}

// open opens the features that the agent is to have. Where one cannot be, the others
// are closed.
func (a *Agent) open(all []feature.Feature) error {
	for _, f := range all {
		if f.Open != nil {
			if err := f.Open(); err != nil {
				a.close()
				return err
			}
		}
		a.features = append(a.features, f)
		a.schedule = append(a.schedule, f.Tasks...)
		a.metrics.add(f)
	}
	a.schedule.Wake(a.news.wake)
	return nil
}

func (a *Agent) close() {
	for _, f := range slices.Backward(a.features) {
		if f.Close != nil {
			f.Close()
		}
	}
}

// publish has all features follow what is new. What fails does not stop the rest.
func (a *Agent) publish(n feature.News) error {
	var errs []error
	for _, f := range a.features {
		if f.Follow != nil {
			errs = append(errs, f.Follow(n))
		}
	}
	return errors.Join(errs...)
}

// Run does the agent's work until ctx ends. What it has made stays: pods go on
// talking without it. It fails where it cannot begin, or where what it relies
// on breaks for good.
func (a *Agent) Run(ctx context.Context) error {
	defer a.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lock, err := lockNode(ctx, a.config.StateDir, a.log)
	if err != nil {
		return err
	}
	defer lock.Close()
	monitor, err := kernel.NewMonitor(a.config.Fabric.Tunnel)
	if err != nil {
		return err
	}
	for _, f := range a.features {
		if f.Begin != nil {
			if err := f.Begin(); err != nil {
				return err
			}
		}
	}
	tables, err := a.watchTables()
	if err != nil {
		return err
	}
	a.log.Info("flatnetd begins", "version", a.config.Version, "fabric", a.config.Fabric.Mode, "source", a.config.sourceName(), "services", a.shared.Services, "kernel", a.shared.Kernel.Release)
	a.logProblems() // those that are known before anybody listens
	var running sync.WaitGroup
	start := func(l feature.Listener) {
		running.Go(func() {
			if err := l.Run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", l.Name, err))
			}
		})
	}
	start(feature.Listener{Name: "kernel's notifications", Run: func(ctx context.Context) error { return monitor.Run(ctx, a.news.event) }})
	if tables != nil {
		start(feature.Listener{Name: "nftables' notifications", Run: tables.Run})
	}
	for _, f := range a.features {
		for _, l := range f.Listeners {
			start(l)
		}
	}
	server, err := a.listen()
	if err != nil {
		cancel(err)
	} else {
		start(feature.Listener{Name: "server", Run: server.serve})
	}
	a.work(ctx)
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	a.log.Info("flatnetd ends; what it made stays")
	return nil
}

// watchTables begins to watch nftables for all who have to know; it returns nil
// where nobody has, or the kernel has none.
func (a *Agent) watchTables() (*nft.Monitor, error) {
	if !a.shared.TablesPossible() {
		return nil, nil
	}
	var all []nft.Listener
	for _, f := range a.features {
		if f.Tables == nil {
			continue
		}
		listener, err := f.Tables()
		if err != nil {
			return nil, err
		}
		if listener != nil {
			all = append(all, listener)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return nft.NewMonitor(all...)
}

// SocketPath is where a running agent answers `flatnetd status`.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "flatnetd.sock") }

// work is the one goroutine that changes anything.
func (a *Agent) work(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		t, when := a.schedule.Next(time.Now())
		if t != nil {
			a.run(ctx, t)
			// What came meanwhile may matter more than the next task.
			select {
			case <-a.news.signal:
				a.consider()
			default:
			}
			continue
		}
		wait := time.Hour
		if !when.IsZero() {
			wait = time.Until(when)
		}
		timer.Reset(max(wait, 0))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-a.news.signal:
			a.consider()
		case f := <-a.requests:
			f()
		}
	}
}

// consider turns news into tasks.
func (a *Agent) consider() {
	for _, e := range a.news.take() {
		for _, f := range a.features {
			if f.Event != nil {
				f.Event(e)
			}
		}
	}
	a.schedule.TakeAsked()
}

// run does a task, measures it, and sees to its next time.
func (a *Agent) run(ctx context.Context, t *feature.Task) {
	begin := time.Now()
	t.Begin(begin)
	err := t.Run(ctx)
	end := time.Now()
	if errors.Is(err, feature.ErrNotYet) || ctx.Err() != nil {
		return
	}
	a.metrics.took(t, end.Sub(begin), err)
	t.End(err, end) // an error is a problem, and logged as one
	a.logProblems()
}

// do calls f between two tasks. It fails where the agent is busy for longer
// than ctx allows.
func (a *Agent) do(ctx context.Context, f func()) error {
	if err := a.requests.Do(ctx, f); err != nil {
		return fmt.Errorf("flatnetd is busy: %w", err)
	}
	return nil
}
