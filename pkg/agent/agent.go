package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/masquerade"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/plugin"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/rules"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Agent is flatnetd on one node.
type Agent struct {
	config  Config
	log     *slog.Logger
	source  node.Source
	metrics *metrics
	began   time.Time

	news     *news
	requests chan func() // that are done between tasks

	kernel    *kernel.Fabric
	engine    *fabric.Engine
	planner   *fabric.Planner
	keeper    *masquerade.Keeper
	hold      *masquerade.Hold
	rules     *rules.Rules
	host      *host.Keeper
	installer *install.Installer
	plugin    *plugin.Plugin
	asked     requirements.Kernel
	services  *services // nil where they are not balanced, or cannot be

	// What follows belongs to the goroutine that does the work.
	schedule schedule
	report   requirements.Report // of what the kernel lacks
	nodes    []node.Node         // as the source has them; nil until it is known
	judging  *node.Judging
	accepted []node.Node
	refused  []node.Refusal
	underlay kernel.Underlay
	stale    bool // the underlay has to be read again
	plan     *fabric.Plan
	joined   bool // the fabric was made what was planned, once
	ruleset  masquerade.Ruleset
	notHeld  error // why translated connections may be cut by somebody's flush
	// masquerading plans it.
	masquerading masquerade.Planner
	needs        host.Needs
	kept         host.Needs // when the settings of the host were looked at last
	guard        bool       // IPv4 sources have to be checked by nftables
	// pluginTables says that the plugin masquerades pods, by its own tables.
	pluginTables bool
	network      install.Network
	// installed is the network whose configuration was written: what has to be
	// written of the same one again is a repair.
	installed install.Network
	findings  []host.Finding
	disk      []install.Finding
	outsiders []outsider           // pods' addresses outside of the podCIDRs
	done      [numberOfTasks]bool  // with success, once
	errors    [numberOfTasks]error // of the last run
	changed   map[string]peerChange
	told      told         // problems, to the log
	served    service.Node // as the controller of Services was told last
}

// networkName is that of the configuration that is installed.
const networkName = "flatnet"

// hostInterfacePrefix is the plugin's default.
const hostInterfacePrefix = "veth"

// New prepares an agent that works in the caller's network namespace. The client is
// not used where nodes come from a file and Services are not balanced.
func New(c Config, client *apiwatch.Client, log *slog.Logger) (*Agent, error) {
	k, err := kernel.NewFabric(c.Fabric.Tunnel)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		config: c, log: log, source: c.nodes(client, log), began: time.Now(),
		news: newNews(), requests: make(chan func()), metrics: newMetrics(c),
		kernel: k, engine: fabric.NewEngine(k), asked: requirements.Running{},
		keeper: &masquerade.Keeper{Log: log}, hold: &masquerade.Hold{}, rules: &rules.Rules{}, host: &host.Keeper{Log: log, Sysctls: c.SysctlDir},
		installer: &install.Installer{Log: log, SourceDir: c.PluginsDir, BinDir: c.BinDir, ConfDir: c.ConfDir},
		plugin:    &plugin.Plugin{Sysctls: c.SysctlDir}, stale: true, judging: node.NewJudging(c.NodeName),
		changed: map[string]peerChange{}, told: told{},
	}
	a.report = askKernel(a.asked, c.parts())
	a.metrics.inspected(a.report)
	a.configurePlanner()
	if c.Services && !a.report.Lacks(requirements.Services) && !a.report.Lacks(requirements.Services6) {
		if a.services, err = a.newServices(client); err != nil {
			k.Close()
			return nil, err
		}
	}
	return a, nil
}

// Run does the agent's work until ctx ends. What it has made stays: pods go on
// talking without it. It fails where it cannot begin, or where what it relies
// on breaks for good.
func (a *Agent) Run(ctx context.Context) error {
	defer a.kernel.Close()
	defer a.keeper.Close()
	defer a.hold.Release()
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
	if a.services == nil && a.tablesPossible() {
		if err := a.removeServices(); err != nil {
			return err
		}
	}
	tables, err := a.watchTables()
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	start := func(name string, f func() error) {
		running.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	start("source of nodes", func() error { return a.source.Run(ctx, a.news.nodes) })
	start("kernel's notifications", func() error { return monitor.Run(ctx, a.news.event) })
	if tables != nil {
		start("nftables' notifications", func() error { return tables.Run(ctx) })
	}
	start("notifications of settings", func() error {
		return host.Watch(ctx, func() { a.news.ask(hostTask) })
	})
	if a.services != nil {
		start("Services", func() error { return a.services.run(ctx) })
		for _, in := range a.services.standIns {
			start("answers in kube-proxy's place", func() error { return in.run(ctx) })
		}
	}
	start("directories of the plugin", func() error {
		return a.installer.Watch(ctx, func() { a.news.ask(installTask) })
	})
	listener, err := a.listen()
	if err != nil {
		cancel(err)
	} else {
		start("server", func() error { return listener.serve(ctx) })
	}
	a.log.Info("flatnetd begins", "version", a.config.Version, "fabric", a.config.Fabric.Mode, "source", a.sourceName(), "services", a.services != nil, "kernel", a.report.Release)
	a.schedule.by(kernelTask, time.Now().Add(a.config.Resync))
	a.logKernelProblems()
	a.work(ctx)
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	a.log.Info("flatnetd ends; what it made stays")
	return nil
}

// watchTables begins to watch nftables for all who have to know; it returns nil
// where the kernel has none.
func (a *Agent) watchTables() (*kernel.NftablesMonitor, error) {
	if !a.tablesPossible() {
		return nil, nil
	}
	masquerading, err := masquerade.NewWatcher(func() {
		a.news.ask(masqueradeTask)
		a.news.ask(podsTask)
	}, a.keeper)
	if err != nil {
		return nil, err
	}
	all := []kernel.NftablesListener{masquerading, &host.ForwardWatcher{Changed: func() { a.news.ask(hostTask) }}}
	if a.services != nil {
		all = append(all, a.services.Watcher())
	}
	return kernel.NewNftablesMonitor(all...)
}

func (a *Agent) sourceName() string {
	if a.config.NodesFile != "" {
		return a.config.NodesFile
	}
	return "kubernetes"
}

// SocketPath is where a running agent answers `flatnetd status`.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "flatnetd.sock") }

// work is the one goroutine that changes anything.
func (a *Agent) work(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		t, ready, when := a.schedule.next(time.Now())
		if ready {
			a.run(ctx, t)
			// What came meanwhile may matter more than the next task.
			select {
			case <-a.news.signal:
				a.consider(a.news.take())
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
			a.consider(a.news.take())
		case f := <-a.requests:
			f()
		}
	}
}

// consider turns news into tasks.
func (a *Agent) consider(b batch) {
	now := time.Now()
	if b.nodes != nil {
		a.nodes = b.nodes
		a.schedule.soon(joinTask, now)
	}
	for _, e := range b.events {
		if e.Pods {
			a.schedule.soon(podsTask, now)
		}
		if a.plan == nil {
			a.stale = a.stale || e.Underlay || e.Lost
			continue // nothing is wanted yet
		}
		if !a.engine.Observe(e) {
			continue
		}
		if e.Underlay || e.Lost {
			a.stale = true
			a.schedule.soon(joinTask, now)
		}
		a.schedule.soon(verifyTask, now)
	}
	for t, asked := range b.tasks {
		if asked {
			a.schedule.soon(task(t), now)
		}
	}
}

// do calls f between two tasks. It fails where the agent is busy for longer
// than ctx allows.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.requests <- func() { f(); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flatnetd is busy: %w", ctx.Err())
	}
}
