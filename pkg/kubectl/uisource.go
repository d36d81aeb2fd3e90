package kubectl

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/page"
)

// uiSource is all agents of a cluster, asked with the rights of whoever looks.
type uiSource struct {
	client  *client
	options *options
	name    string // of the cluster

	mu    sync.Mutex
	found *survey
	at    time.Time // when it was found; zero where it has to be found again
}

// surveyed is how long it is taken for granted where agents run: to list the nodes of a
// large cluster is more work for an API server than to ask each of them.
const surveyed = 15 * time.Second

// find finds out where agents run.
func (s *uiSource) find(ctx context.Context) error {
	_, err := s.survey(ctx)
	return err
}

func (s *uiSource) survey(ctx context.Context) (*survey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil && time.Since(s.at) < surveyed {
		return s.found, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.timeout, errNoTime)
	defer cancel()
	found, err := s.client.look(ctx, s.options.namespace)
	if err != nil {
		return nil, s.options.overTime(ctx, err)
	}
	s.found, s.at = found, time.Now()
	return found, nil
}

// forget has it found out again where agents run.
func (s *uiSource) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Time{}
}

// Overview is what `kubectl flatnet status` says.
func (s *uiSource) Overview(ctx context.Context) (*page.Overview, error) {
	found, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.timeout, errNoTime)
	defer cancel()
	all := takeOverview(ctx, s.options.version, found, s.options.asker(s.client))
	if slices.ContainsFunc(all.Nodes, func(n nodeStatus) bool { return n.State == stateNoAnswer }) {
		s.forget() // its pod may have been replaced
	}
	o := &page.Overview{Of: page.OfCluster, Name: s.name, Version: s.options.version, Notes: all.differences(), Unknown: all.Unknown}
	for _, n := range all.Nodes {
		o.Nodes = append(o.Nodes, n.forPage())
	}
	for _, f := range all.findings() {
		o.Findings = append(o.Findings, page.Finding{Nodes: f.nodes, Text: f.text, Advice: f.advice})
	}
	return o, nil
}

// forPage is the node as the page shows it.
func (n nodeStatus) forPage() page.Node {
	p := page.Node{
		Name: n.Node, State: n.State, Wrong: n.wrong(), Unknown: n.unknown(), Answers: n.State == stateReady || n.State == stateNotReady,
		Reason: n.Reason, Advice: n.Advice, Version: n.Version, Since: n.Since, Fabric: n.Fabric, PodMTU: n.PodMTU, Pods: n.Pods,
		Addresses: n.said.Addresses, PodCIDRs: n.said.PodCIDRs, Problems: len(n.Problems) + n.MoreProblems,
	}
	for _, u := range n.said.Pods {
		p.Usage = append(p.Usage, page.Usage{Family: u.Family, Used: u.Used, Cooling: u.Cooling, Total: u.Total})
	}
	for _, g := range n.Joined {
		p.Joined = append(p.Joined, page.Group{Mode: g.Mode, Peers: g.Peers})
	}
	if d := n.DataPath; d != nil {
		p.DataPath = &page.DataPath{Path: d.Path, Because: d.Because, Flows: d.Flows, Hits: d.Hits, Misses: d.Misses}
	}
	if b := n.BGP; b != nil {
		p.BGP = &page.Sessions{Peers: b.Peers, Established: b.Established}
	}
	if b := n.LoadBalancer; b != nil {
		p.Balancer = &page.Balancer{Leader: b.Leader, Here: b.Here}
	}
	return p
}

// questions are what flatnetd is told for what the page asks. Nobody writes to it.
var questions = map[page.About][]string{
	page.Peers:     {"status", "-o", "json"},
	page.Pods:      {"status", "pods", "-o", "json"},
	page.Services:  {"status", "services", "-o", "json"},
	page.Policies:  {"status", "policies", "-o", "json"},
	page.BGP:       {"status", "bgp", "-o", "json"},
	page.Balancers: {"status", "announcements", "-o", "json"},
	page.Flows:     {"flows", "-o", "json", "--limit", strconv.Itoa(page.MostFlows)},
}

// Ask asks the agent of a node.
func (s *uiSource) Ask(ctx context.Context, node string, about page.About, pod string) ([]byte, error) {
	found, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(found.Sites, func(at site) bool { return at.Node == node })
	if at < 0 || found.Sites[at].Fault != nil {
		return nil, errors.New("nobody can be asked there by now")
	}
	a := s.options.asker(s.client)
	ctx, done := a.limit(ctx)
	defer done()
	words := questions[about]
	if pod != "" {
		words = append(slices.Clone(words), "--pod="+pod) // one word, whatever the name looks like
	}
	return a.flatnetd(ctx, found.Sites[at], words...)
}
