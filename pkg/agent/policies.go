package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/records"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// policies is the feature that keeps NetworkPolicies: it tells the controller which pods
// are attached, and closes new ones until the controller is done with them.
type policies struct {
	*feature.Shared
	config  Config
	client  *apiwatch.Client
	metrics *policyMetrics
	began   time.Time

	// What follows is not there where policies are not kept.
	controller *policy.Controller
	source     policySource
}

// patienceAtStart is how long it is no problem that policies are not known yet.
const patienceAtStart = 10 * time.Second

// policySource is where policies come from, and the pods, namespaces and nodes that they
// are about.
type policySource interface {
	policy.Source
	Run(ctx context.Context)
	// Unread are the objects that cannot be understood.
	Unread() []policy.Unread
}

func newPolicies(c Config, client *apiwatch.Client, s *feature.Shared) *policies {
	return &policies{Shared: s, config: c, client: client, metrics: newPolicyMetrics(), began: time.Now()}
}

func (p *policies) feature() feature.Feature {
	return feature.Feature{
		Open: p.open, Begin: p.begin,
		Listeners: []feature.Listener{{Name: "policies", Run: p.run}}, Tables: p.watch,
		Problems: p.problems, UpToDate: p.upToDate,
		Status: func(context.Context) feature.Part { return p.status().part() },
		Pages:  map[string]http.HandlerFunc{"/status/policies": p.serve, "/policy/explain": p.explain},
		Metrics: []prometheus.Collector{
			p.metrics.seconds, p.metrics.opened, refusedPackets{p},
		},
		Gauges: []feature.Gauge{
			{
				Description: prometheus.NewDesc("flatnet_policy_source_healthy", "1 where what is known of policies, pods and namespaces is up to date, else 0.", nil, nil),
				Read: func(_ context.Context, tell func(float64, ...string)) {
					if p.controller != nil {
						tell(truth(p.source.Check() == nil))
					}
				},
			},
			{
				Description: prometheus.NewDesc("flatnet_policies", "NetworkPolicies and ClusterNetworkPolicies by state: known, selecting (pods of this node).", []string{"state"}, nil),
				Read: func(_ context.Context, tell func(float64, ...string)) {
					if p.controller != nil {
						s := p.controller.Summary()
						tell(float64(s.Policies), "known")
						tell(float64(s.Selected), "selecting")
					}
				},
			},
		},
		Repairs: []string{"policies"},
		Cleanup: feature.Removal{At: feature.AfterPods, Do: p.remove},
	}
}

// open prepares the keeping, in the caller's network namespace.
func (p *policies) open() error {
	if !p.config.Policies || p.Kernel.Lacks(requirements.Policies) {
		return nil
	}
	if p.config.PoliciesDir != "" {
		p.source = policy.NewDirectory(p.config.PoliciesDir, p.Log)
	} else {
		p.source = policy.NewKubernetes(p.client, p.Log)
	}
	p.controller = policy.NewController(p.source, p.Log)
	p.controller.Resync, p.controller.LogDrops = p.config.Resync, p.config.LogDrops
	p.controller.Sysctls = p.config.SysctlDir
	p.controller.KeepFlows = p.Kernel.Lacks(requirements.Forgetting)
	p.controller.Gate = &gate{config: p.config, table: closed.Table{Lasting: true}}
	p.controller.Observe = func(o policy.Observation) {
		p.Decide() // that the rules were written is told by the kernel as well, but later
		p.metrics.seconds.Observe(o.Duration.Seconds())
		p.metrics.opened.Add(float64(o.Opened))
		if o.Repaired > 0 {
			p.Repaired("policies", o.Repaired) // a counter, which any goroutine may increase
		}
	}
	return nil
}

// run keeps policies until ctx ends, or until it is no longer told which pods are
// attached: without that the rules would be those of pods that are gone.
func (p *policies) run(ctx context.Context) error {
	if p.controller == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.source.Run(ctx)
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- records.Watch(ctx, attachment.OpenDirectory(p.config.StateDir), func(all []attachment.Record) { p.controller.Attach(attachedIn(all)) })
	}()
	p.controller.Run(ctx)
	return <-ended
}

// attachedIn are the pods that records are of. A pod with several interfaces has all of
// their addresses; what is attached for no pod has no policies, and is no pod to them.
//
// Of one name there may be two for a while: the one that ends, and the one that takes its
// place. The later one has the name. The former has one that the API server never tells
// of, so that it is closed where a policy may select it.
func attachedIn(records []attachment.Record) (all []policy.Attached) {
	records = slices.SortedFunc(slices.Values(records), func(a, b attachment.Record) int { return b.Since.Compare(a.Since) })
	at := map[policy.Name]int{}
	for _, r := range records {
		namespace, name, is := strings.Cut(r.Pod, "/")
		if !is {
			all = append(all, policy.Attached{Addresses: r.Wire.Addresses})
			continue
		}
		n := policy.Name{Namespace: namespace, Name: name}
		if i, known := at[n]; known && all[i].UID != r.UID {
			n.Name += " (former)"
		}
		i, known := at[n]
		if !known {
			i, at[n] = len(all), len(all)
			all = append(all, policy.Attached{Name: n, UID: r.UID})
		}
		all[i].Addresses = append(all[i].Addresses, r.Wire.Addresses...)
	}
	return all
}

func (p *policies) watch() (nft.Listener, error) {
	if p.controller == nil {
		return nil, nil
	}
	return listeners{p.controller.Watcher(), closed.Watcher(p.controller.Knock)}, nil
}

// begin makes the table of closed pods what it is to be, and closes all new pods where
// nothing is known yet in which namespaces they are to be: on a node that has not kept
// policies before.
func (p *policies) begin() error {
	if p.controller == nil {
		return p.removeFormer()
	}
	// The plugin joins the table as it is: an earlier version's lacks what this one has.
	if err := (&closed.Table{}).Mend(); err != nil {
		p.Log.Warn("the table of pods that begin closed is left as it is", "error", err)
	}
	if _, err := os.Stat(p.config.PoliciesFile); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return (&gate{config: p.config}).Tell(nil, [2]bool{true, true})
}

// removeFormer removes what a run with --policies has left, and lets pods in that wait.
func (p *policies) removeFormer() error {
	if !p.TablesPossible() {
		return nil
	}
	removed, err := p.remove(context.Background())
	for _, what := range removed {
		p.Log.Info("removed, because policies are not kept", "what", what)
	}
	return err
}

func (p *policies) remove(context.Context) (removed []string, err error) {
	// The list first: or else a pod that begins now is closed for good.
	if err := os.Remove(p.config.PoliciesFile); err == nil {
		removed = append(removed, "list of closed namespaces "+p.config.PoliciesFile)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the list of closed namespaces: %w", err)
	}
	if !(requirements.Running{}).HasNftables() {
		return removed, nil
	}
	was, err := (&closed.Table{}).Remove()
	if was != "" {
		removed = append(removed, was)
	}
	there, failed := policy.Remove()
	if there {
		removed = append(removed, "nftables table inet "+policy.TableName)
	}
	return removed, errors.Join(err, failed)
}

// upToDate says why policies may not be what is in force.
func (p *policies) upToDate() error {
	if p.controller == nil {
		return nil
	}
	return p.controller.Check()
}

func (p *policies) problems() []problem.Problem {
	if p.controller == nil {
		return nil
	}
	lost := p.source.Check()
	if !p.source.Known() && time.Since(p.began) < patienceAtStart {
		lost = nil // it is being asked
	}
	return policing{p.config.NodeName, p.controller.Summary(), lost, p.source.Unread()}.problems()
}

// serve says what policies come to for each pod.
func (p *policies) serve(w http.ResponseWriter, r *http.Request) {
	if !p.kept(w) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := p.controller.Status(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	idle, err := p.controller.Idle(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	early, err := p.controller.Early(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, PodPolicies{all, EarlyPackets{early[policy.Ingress], early[policy.Egress]}, idle})
}

// explain says what decides about a connection.
func (p *policies) explain(w http.ResponseWriter, r *http.Request) {
	if !p.kept(w) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	q := r.URL.Query()
	port, err := parsePort(q.Get("port"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e, err := p.controller.Explain(ctx, q.Get("from"), q.Get("to"), port)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	answer(w, e)
}

func (p *policies) kept(w http.ResponseWriter) bool {
	if p.controller == nil {
		http.Error(w, "policies are not kept by this flatnetd: it runs without --policies, or the kernel lacks what they need, which `flatnetd status` says", http.StatusNotFound)
	}
	return p.controller != nil
}

// listeners are several that are told the same.
type listeners []nft.Listener

// Change implements [nft.Listener].
func (l listeners) Change(c nft.Change) {
	for _, one := range l {
		one.Change(c)
	}
}

// Commit implements [nft.Listener].
func (l listeners) Commit(c nft.Commit) {
	for _, one := range l {
		one.Commit(c)
	}
}

// Missed implements [nft.Listener].
func (l listeners) Missed() {
	for _, one := range l {
		one.Missed()
	}
}
