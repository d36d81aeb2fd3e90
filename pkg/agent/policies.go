package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/pkg/problem"
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

// policySource is where policies come from, and pods and namespaces.
type policySource interface {
	policy.Source
	Run(ctx context.Context)
	// Invalid are the policies that cannot be understood at all.
	Invalid() map[policy.PolicyKey]string
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
				Description: prometheus.NewDesc("flatnet_policy_source_healthy", "1 where the source of policies is up to date, else 0.", nil, nil),
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
	p.controller.KeepFlows = p.Kernel.Lacks(requirements.Forgetting)
	p.controller.Gate = &gate{config: p.config}
	p.controller.Observe = func(o policy.Observation) {
		p.metrics.seconds.Observe(o.Duration.Seconds())
		p.metrics.opened.Add(float64(o.Opened))
		if o.Repaired > 0 {
			p.Repaired("policies", o.Repaired) // a counter, which any goroutine may increase
		}
	}
	return nil
}

// run keeps policies until ctx ends.
func (p *policies) run(ctx context.Context) error {
	if p.controller == nil {
		return nil
	}
	go p.source.Run(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- attachment.OpenDirectory(p.config.StateDir).Watch(ctx, func(all []attachment.Record) { p.controller.Attach(attachedIn(all)) })
	}()
	p.controller.Run(ctx)
	return <-ended
}

// attachedIn are the pods that records are of. A pod with several interfaces has all of
// their addresses; what is attached for no pod has no policies.
func attachedIn(records []attachment.Record) (all []policy.Attached) {
	at := map[policy.Name]int{}
	for _, r := range records {
		namespace, name, is := strings.Cut(r.Pod, "/")
		if !is {
			continue
		}
		n := policy.Name{Namespace: namespace, Name: name}
		// Of one name there may be two for a while: the one that ends, and the one that
		// takes its place. The later one has the name.
		i, known := at[n]
		switch {
		case !known:
			at[n] = len(all)
			all = append(all, policy.Attached{Name: n, UID: r.UID, Addresses: r.Wire.Addresses})
		case all[i].UID == r.UID:
			all[i].Addresses = append(all[i].Addresses[:len(all[i].Addresses):len(all[i].Addresses)], r.Wire.Addresses...)
		}
	}
	return all
}

// gate closes new pods by the list that the plugin reads, and opens them.
type gate struct {
	config Config
	table  closed.Table
	told   string
}

// Tell implements [policy.Gate].
func (g *gate) Tell(of map[string][2]bool, others [2]bool) error {
	words := func(d [2]bool) []string {
		all := []string{}
		for _, one := range policy.Directions {
			if d[one] {
				all = append(all, one.String())
			}
		}
		return all
	}
	l := closed.List{Namespaces: map[string][]string{}, Others: words(others), WithoutAgent: g.config.PoliciesWithoutAgent}
	for name, d := range of {
		l.Namespaces[name] = words(d)
	}
	text := fmt.Sprint(l) // maps are printed in order
	if text == g.told {
		return nil
	}
	if err := closed.Write(g.config.PoliciesFile, l); err != nil {
		return err
	}
	g.told = text
	return nil
}

// Closed implements [policy.Gate].
func (g *gate) Closed() ([]netip.Addr, error) { return g.table.Addresses() }

// Open implements [policy.Gate].
func (g *gate) Open(addresses ...netip.Addr) error { return g.table.Open(addresses...) }

func (p *policies) watch() (nft.Listener, error) {
	if p.controller == nil {
		return nil, nil
	}
	return listeners{p.controller.Watcher(), closed.Watcher(p.controller.Knock)}, nil
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

// begin closes all new pods where nothing is known yet in which namespaces they are to
// be: on a node that has not kept policies before.
func (p *policies) begin() error {
	if p.controller == nil {
		return p.removeFormer()
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
	return policing{p.config.NodeName, p.controller.Summary(), lost, p.source.Invalid()}.problems()
}

// policing is what there is to know of how policies are kept.
type policing struct {
	node    string
	summary policy.Summary
	lost    error // why the source is not up to date
	invalid map[policy.PolicyKey]string
}

func (b policing) problems() (all []problem.Problem) {
	add := func(kind problem.Kind, f problem.Facts) {
		f.Node = b.node
		all = append(all, kind.Of(f))
	}
	if b.lost != nil {
		add(problem.PoliciesSource, problem.Facts{Object: "source of policies", Reason: strings.ReplaceAll(b.lost.Error(), "\n", "; "), Needs: []problem.Thing{problem.API}})
	}
	if b.summary.Failure != "" {
		add(problem.PoliciesRules, problem.Facts{Object: "rules of policies", Reason: b.summary.Failure})
	}
	for _, f := range b.summary.Faults {
		add(problem.PolicyFault, problem.Facts{Object: f.Policy, Reason: f.Fault})
	}
	for key, why := range b.invalid {
		kind := "NetworkPolicy"
		if key.Cluster {
			kind = "ClusterNetworkPolicy"
		}
		add(problem.PolicyFault, problem.Facts{Object: kind + " " + key.Name.String(), Reason: why})
	}
	return all
}

// PoliciesStatus is how policies are kept.
type PoliciesStatus struct {
	// Policies is nil where they are not.
	Policies *policy.Summary `json:"policies,omitempty"`
}

func (p *policies) status() (all PoliciesStatus) {
	if p.controller != nil {
		s := p.controller.Summary()
		all.Policies = &s
	}
	return all
}

func (s PoliciesStatus) part() feature.Part {
	part := feature.Part{Document: s}
	if s.Policies == nil {
		return part
	}
	state := "rules as wanted"
	if !s.Policies.Synced {
		state = "rules NOT as wanted"
	}
	part.Rows = append(part.Rows, feature.Row{Name: "policies", Value: fmt.Sprintf("%d of %d select %d of %d pods here, %s",
		s.Policies.Selected, s.Policies.Policies, s.Policies.Isolated, s.Policies.Pods, state)})
	return part
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
	answer(w, PodPolicies{all, idle})
}

// explain says what decides about a connection.
func (p *policies) explain(w http.ResponseWriter, r *http.Request) {
	if !p.kept(w) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	q := r.URL.Query()
	protocol, port, err := parsePort(q.Get("port"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e, err := p.controller.Explain(ctx, q.Get("from"), q.Get("to"), protocol, port)
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

// parsePort reads PORT, PORT/PROTOCOL or a PROTOCOL without ports.
func parsePort(text string) (policy.Protocol, uint16, error) {
	number, name, is := strings.Cut(text, "/")
	if !is {
		name = "tcp"
		if number == "icmp" || number == "icmpv6" {
			number, name = "0", number
		}
	}
	protocol, known := map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": 1, "icmpv6": 58}[strings.ToLower(name)]
	port, err := strconv.ParseUint(number, 10, 16)
	if !known || err != nil {
		return 0, 0, fmt.Errorf("%q is not a port, as in 80, 53/udp, 132/sctp or icmp", text)
	}
	return protocol, uint16(port), nil
}

// PodPolicies is what `flatnetd status policies` prints.
type PodPolicies struct {
	Pods []policy.PodStatus `json:"pods"`
	// Idle are the policies of the cluster that do nothing, or less than they say.
	Idle []policy.Fault `json:"idle,omitempty"`
}

// Print writes it for people.
func (s PodPolicies) Print(w io.Writer) {
	free := 0
	for _, p := range s.Pods {
		quiet := p.Known
		for _, d := range p.Sides {
			quiet = quiet && len(d.Policies) == 0
		}
		if quiet {
			free++
			continue
		}
		var addresses []string
		for _, a := range p.Addresses {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(w, "%s  %s\n", p.Pod, strings.Join(addresses, " "))
		if !p.Known {
			fmt.Fprintf(w, "  nothing is known of it yet: closed to %s\n", closedTo(p))
		}
		for _, d := range p.Sides {
			if len(d.Policies) == 0 {
				continue
			}
			rest := "what no rule is about passes"
			if d.Isolated {
				rest = "the rest is refused"
			}
			fmt.Fprintf(w, "  %s: %s, refused packets: %d; by %s\n", d.Direction, rest, d.Refused, strings.Join(d.Policies, ", "))
			for _, rule := range d.Allows {
				fmt.Fprintf(w, "    %s\n", rule)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d pods are selected by no policy\n", free, len(s.Pods))
	for _, f := range s.Idle {
		fmt.Fprintf(w, "%s %s\n", f.Policy, f.Fault)
	}
}

// closedTo says in which directions a pod is closed of which nothing is known.
func closedTo(p policy.PodStatus) string {
	var words []string
	for _, d := range p.Sides {
		if d.Isolated {
			words = append(words, d.Direction)
		}
	}
	if len(words) == 0 {
		return "nothing, since no policy can select it"
	}
	return strings.Join(words, " and ")
}

// printExplanation writes it for people.
func printExplanation(w io.Writer, e policy.Explanation) {
	what := e.Protocol
	if e.Port > 0 {
		what = fmt.Sprintf("port %d/%s", e.Port, e.Protocol)
	}
	verdict := "allowed"
	switch {
	case slices.ContainsFunc(e.Decisions, func(d policy.Decision) bool { return !d.Allowed }):
		verdict = "REFUSED"
	case e.Elsewhere && len(e.Decisions) == 0:
		verdict = "not decided on this node"
	case e.Elsewhere:
		verdict = "allowed by this node's end"
	}
	fmt.Fprintf(w, "%s to %s, %s: %s\n", e.From, e.To, what, verdict)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, d := range e.Decisions {
		word := "allows"
		if !d.Allowed {
			word = "refuses"
		}
		fmt.Fprintf(table, "  %s of %s %s\t%s\t%s\n", d.Direction, d.Pod, d.Address, word, d.Because)
	}
	table.Flush()
	for _, n := range e.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
}

// policyMetrics are those that the controller tells.
type policyMetrics struct {
	seconds prometheus.Histogram
	opened  prometheus.Counter
}

func newPolicyMetrics() *policyMetrics {
	return &policyMetrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flatnet_policy_sync_seconds", Help: "Time that it took to bring the rules of policies up to date.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{Name: "flatnet_policy_pods_opened_total", Help: "Addresses of new pods that were closed until their rules were in place."}),
	}
}

// refusedPackets are read when they are asked for: two series a pod of this node that a
// policy selects.
type refusedPackets struct{ p *policies }

var refusedDescription = prometheus.NewDesc("flatnet_policy_refused_packets_total", "Packets of new connections that policies refused, by pod of this node and direction.", []string{"namespace", "pod", "direction"}, nil)

// Describe implements [prometheus.Collector].
func (refusedPackets) Describe(all chan<- *prometheus.Desc) { all <- refusedDescription }

// Collect implements [prometheus.Collector].
func (r refusedPackets) Collect(all chan<- prometheus.Metric) {
	if r.p.controller == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pods, err := r.p.controller.Status(ctx)
	if err != nil {
		return // the next one may be answered
	}
	for _, pod := range pods {
		namespace, name, _ := strings.Cut(pod.Pod, "/")
		for _, d := range pod.Sides {
			if len(d.Policies) > 0 {
				all <- prometheus.MustNewConstMetric(refusedDescription, prometheus.CounterValue, float64(d.Refused), namespace, name, d.Direction)
			}
		}
	}
}
