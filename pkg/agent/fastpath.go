package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/filewatch"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// fastPath is the feature that has packets of established flows go past netfilter and
// routing.
type fastPath struct {
	*feature.Shared
	config  Config
	keeper  *fastpath.Keeper
	monitor *fastpath.Monitor
	host    *host.Keeper
	task    *feature.Task
	check   *feature.Task

	cleared bool   // nothing of an earlier run is left, where it is not to be used
	why     string // it is not in use; "" where it is
	failure error  // why it is not, where that is not as it should be
	done    fastpath.Done
	without []string // pods for which it is switched off
}

func newFastPath(c Config, s *feature.Shared) *fastPath {
	keeper := &fastpath.Keeper{Log: s.Log, TunnelPort: uint16(c.Fabric.Port), VNI: uint32(c.Fabric.VNI), Sysctls: c.SysctlDir}
	f := &fastPath{Shared: s, config: c, keeper: keeper, host: &host.Keeper{Log: s.Log, Sysctls: c.SysctlDir}, why: notSetUp}
	f.task = &feature.Task{
		Name: "fast path", Run: s.OncePlanned(f.keep), Gap: 100 * time.Millisecond,
		Advice: "look at `bpftool net show dev` of pods' interfaces and the underlay's, and at who else attaches programs there",
	}
	f.check = &feature.Task{
		Name: "fast path's comparison", Run: s.OncePlanned(f.verify), Gap: 300 * time.Millisecond, Every: c.Resync,
		Advice: f.task.Advice,
	}
	f.monitor = &fastpath.Monitor{Keeper: keeper, Changed: f.task.Ask}
	s.Decide = keeper.Raise
	return f
}

func (f *fastPath) feature() feature.Feature {
	return feature.Feature{
		Open: f.open, Close: f.close, Tasks: []*feature.Task{f.task, f.check}, Follow: f.follow, Problems: f.problems,
		Listeners: []feature.Listener{{Name: "notifications about flows", Run: f.listen}, {Name: "pods without the fast path", Run: f.watchWithout}},
		Tables: func() (nft.Listener, error) {
			if f.off() {
				return nil, nil
			}
			return listeners{f.monitor, &nft.Watcher{Tables: []nft.ID{fastpath.TableID}, Own: f.keeper.Port, Changed: f.check.Ask}}, nil
		},
		Status:  func(context.Context) feature.Part { return f.status().part() },
		Pages:   map[string]http.HandlerFunc{"/flows": f.serveFlows},
		Gauges:  f.gauges(),
		Repairs: []string{"fast path"},
		Cleanup: feature.Removal{Do: func(context.Context) ([]string, error) { return f.remove(true) }},
	}
}

// notSetUp is why it is not in use at the beginning.
const notSetUp = "it is not set up yet"

// off reports whether it is not to be used.
func (f *fastPath) off() bool { return f.config.Datapath == datapathKernel }

func (f *fastPath) open() error {
	if f.off() {
		return nil
	}
	return f.monitor.Open()
}

func (f *fastPath) close() {
	f.monitor.Close()
	f.keeper.Close()
}

func (f *fastPath) listen(ctx context.Context) error {
	if f.off() {
		return nil
	}
	return f.monitor.Run(ctx)
}

func (f *fastPath) follow(n feature.News) error {
	switch n {
	case feature.FabricJoined, feature.FabricPlanned:
		f.keeper.Raise()
		f.task.Soon()
	case feature.KernelChanged, feature.SourcesChanged:
		f.keeper.Raise()
		f.check.Soon()
	}
	return nil
}

// keep has the programs where they are to be. The comparison's interval begins with it:
// nobody may ever ask for one, and of who detaches a program the kernel tells nobody.
func (f *fastPath) keep(ctx context.Context) error {
	f.check.By(time.Now().Add(f.config.Resync))
	return f.apply(ctx, false)
}

// verify does the same, and looks at what should not have changed.
func (f *fastPath) verify(ctx context.Context) error { return f.apply(ctx, true) }

func (f *fastPath) apply(ctx context.Context, verify bool) error {
	if f.off() {
		f.why = "--datapath kernel"
		return f.clear()
	}
	before := f.why
	err := f.use(ctx, verify)
	switch {
	case errors.Is(err, feature.ErrNotYet):
		return err
	case err == nil:
		f.why, f.failure = "", nil
	case !f.keeper.Loaded():
		// This kernel cannot, or flatnetd may not. That is what auto is for.
		f.why, f.failure = lastLine(err), nil
		if f.config.Datapath == datapathEBPF {
			f.failure = err
		}
		err = f.clear()
	default:
		f.why, f.failure = lastLine(err), err
		err = feature.Told{Err: err}
	}
	if f.why != before {
		f.Log.Info("fast path", "in use", f.why == "", "because", f.why)
	}
	return err
}

// use brings all that it needs into the kernel, in the order of what relies on what.
func (f *fastPath) use(ctx context.Context, verify bool) error {
	if !f.TablesPossible() {
		return errors.New("the kernel has no nf_tables")
	}
	if f.keeper.Loaded() || verify || f.why == notSetUp {
		if err := f.keeper.Load(); err != nil {
			return err
		}
	}
	if !f.keeper.Loaded() {
		return errors.New(f.why) // it is tried again with the next comparison
	}
	f.cleared = false
	where, err := f.where()
	if err != nil {
		return err
	}
	repaired, err := f.keeper.Mark(ctx, where, verify)
	if err != nil {
		return err
	}
	if f.why == "" {
		f.Repaired("fast path", repaired)
	}
	if !f.FastPath {
		f.FastPath, f.Filters = true, !fastpath.HasLinks()
		if err := f.Publish(feature.PathChanged); err != nil {
			return err
		}
	}
	if err := f.liberal(); err != nil {
		return err
	}
	f.done, err = f.keeper.Attach(where, verify)
	if err != nil {
		return err
	}
	for _, name := range f.done.Repaired {
		f.Repaired("fast path", 1)
		f.Log.Warn("repaired what somebody had changed", "object", "programs of the fast path at interface "+name)
	}
	return nil
}

// liberal waits until connection tracking takes packets for right of whose connection it
// has not seen the middle: before, none may go past it.
func (f *fastPath) liberal() error {
	if f.why == "" {
		return nil // and the host's settings are kept
	}
	set, err := f.host.IsLiberal()
	if err == nil && !set {
		err = errors.New("connection tracking judges sequence numbers (net.netfilter.nf_conntrack_tcp_be_liberal is 0)")
		const again = 50 * time.Millisecond
		f.task.By(time.Now().Add(again))
		if !f.task.Done() {
			return feature.ErrNotYet // the host's settings are about to be made
		}
	}
	return err
}

// where are the interfaces that flows go by.
func (f *fastPath) where() (fastpath.Where, error) {
	w := fastpath.Where{Underlay: f.Plan.Underlay, Tunnel: f.Plan.Tunnel, Outer: f.Plan.Outer}
	pods, err := readWithout(f.withoutPath())
	if err != nil {
		return w, err
	}
	f.without = pods
	if len(pods) == 0 {
		return w, nil
	}
	records, err := attachment.OpenDirectory(f.config.StateDir).List("")
	if err != nil {
		return w, err
	}
	w.Without = map[string]bool{}
	for _, r := range records {
		if slices.Contains(pods, r.Pod) {
			w.Without[r.Wire.Host.Name] = true
		}
	}
	return w, nil
}

// clear takes away what an earlier run has left.
func (f *fastPath) clear() error {
	if f.FastPath || f.Filters {
		f.FastPath, f.Filters = false, false
		if err := f.Publish(feature.PathChanged); err != nil {
			return err
		}
	}
	if f.cleared {
		return nil
	}
	removed, err := f.remove(false)
	if err != nil {
		return err
	}
	f.cleared = true
	if len(removed) > 0 {
		f.Log.Info("fast path removed", "objects", strings.Join(removed, "; "))
	}
	return nil
}

// remove leaves no program and no table; what is left of qdiscs loses packets when it goes,
// which is for who has nothing to do with flatnet any more.
func (f *fastPath) remove(qdiscs bool) ([]string, error) {
	k := &fastpath.Keeper{Log: f.Log}
	return k.Remove(fastpath.Leaving{Tables: (requirements.Running{}).HasNftables(), Qdiscs: qdiscs})
}

func (f *fastPath) problems() (all []problem.Problem) {
	if f.failure != nil {
		all = append(all, problem.FastPath.Of(problem.Facts{Node: f.config.NodeName, Reason: lastLine(f.failure)}))
	}
	for _, s := range f.done.Skipped {
		if s.Failed {
			all = append(all, problem.FastPath.Of(problem.Facts{Node: f.config.NodeName, Object: "interface " + s.Interface, Reason: s.Reason}))
		}
	}
	return all
}

// lastLine is an error in one line: a program that is refused has hundreds, of which the
// last but one says why.
func lastLine(err error) string {
	const most = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > most {
		text = text[:most/2] + " … " + text[len(text)-most/2:]
	}
	return text
}

// withoutFile lists pods for which it is switched off, namespace/name, one a line.
const withoutFile = "without-fast-path"

func (f *fastPath) withoutPath() string { return filepath.Join(f.config.StateDir, withoutFile) }

func readWithout(path string) (pods []string, err error) {
	const mostBytes = 1 << 20
	raw, err := filewatch.Read(path, mostBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which pods are without the fast path: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
			pods = append(pods, strings.TrimSpace(line))
		}
	}
	return pods, nil
}

// watchWithout has the task look at the list when that has changed.
func (f *fastPath) watchWithout(ctx context.Context) error {
	if f.off() {
		return nil
	}
	watching := filewatch.NewWatching(func(name string) bool { return name == withoutFile })
	defer watching.Close()
	for ctx.Err() == nil {
		pause := filewatch.Poll
		if err := watching.Ensure(f.config.StateDir); err != nil {
			pause = filewatch.PollUnwatched
		}
		select {
		case <-ctx.Done():
		case <-watching.Changed:
			f.keeper.Touched(0)
			f.task.Ask()
		case <-time.After(pause):
		}
	}
	return nil
}

func (f *fastPath) gauges() []feature.Gauge {
	one := func(name, help string, read func() (float64, error)) feature.Gauge {
		return feature.Gauge{
			Description: prometheus.NewDesc(name, help, nil, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				if value, err := read(); err == nil {
					tell(value)
				}
			},
		}
	}
	// counted is what the programs have counted, by a label.
	counted := func(name, help, label string, tellOf func(c fastpath.Counts, tell func(float64, ...string))) feature.Gauge {
		return feature.Gauge{
			Counts:      true,
			Description: prometheus.NewDesc(name, help, []string{label}, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				if c, err := f.keeper.Counts(); err == nil && f.keeper.Loaded() {
					tellOf(c, tell)
				}
			},
		}
	}
	return []feature.Gauge{
		one("flatnet_fastpath", "1 where packets of established flows go past netfilter and routing, which have decided about the flow, else 0.", func() (float64, error) { return truth(f.why == ""), nil }),
		one("flatnet_fastpath_interfaces", "Interfaces that the programs of the fast path are at.", func() (float64, error) { return float64(len(f.attached())), nil }),
		one("flatnet_fastpath_flows", "Flows that are remembered.", func() (float64, error) {
			counted, err := f.keeper.Count(countPatience)
			return float64(counted.Flows), err
		}),
		counted("flatnet_fastpath_packets_total", "Packets of TCP and UDP that came in at interfaces with the programs, by result: hit, which took the fast path; miss, which could have been of a remembered flow and were not.", "result",
			func(c fastpath.Counts, tell func(float64, ...string)) {
				tell(float64(c.Hits), "hit")
				tell(float64(c.Misses), "miss")
			}),
		counted("flatnet_fastpath_overlay_packets_total", "Packets of the fast path that went by the overlay without its device, by what the programs did: wrapped, unwrapped.", "direction",
			func(c fastpath.Counts, tell func(float64, ...string)) {
				tell(float64(c.Wrapped), "wrapped")
				tell(float64(c.Unwrapped), "unwrapped")
			}),
		{
			Counts:      true,
			Description: prometheus.NewDesc("flatnet_fastpath_raised_total", "How often all flows were to be decided anew.", nil, nil),
			Read: func(_ context.Context, tell func(float64, ...string)) {
				if c, err := f.keeper.Counts(); err == nil {
					tell(float64(c.Raised))
				}
			},
		},
	}
}

// attached are the interfaces that have the programs.
func (f *fastPath) attached() []string {
	if f.why != "" {
		return nil
	}
	return f.done.Attached
}
