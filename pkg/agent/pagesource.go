package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/page"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// servePage is `flatnetd page`: what the agent of this node says, for a browser.
func servePage(ctx context.Context, c Config, port int, out io.Writer) error {
	source := pageSource{c}
	// Where there is no agent, or nobody may ask it, that is said here.
	if _, err := source.Overview(ctx); err != nil {
		return err
	}
	l, err := page.Listen(port)
	if err != nil {
		return err
	}
	return page.New(source).Serve(ctx, l, func(address string) error { return page.Announce(out, address) })
}

// pageSource is the agent of this node.
type pageSource struct{ config Config }

// States of nodes as the page has them, beside page.Ready.
const (
	stateNotReady = "not ready"
	statePeer     = "peer"
	stateCutOff   = "not reached"
)

// Overview is the node, and its peers as far as it knows them.
func (s pageSource) Overview(ctx context.Context) (*page.Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	said, err := AskStatus(ctx, s.config.StateDir)
	if err != nil {
		return nil, err
	}
	o := &page.Overview{Of: page.OfNode, Name: said.Node, Version: s.config.Version}
	own := page.Node{
		Name: said.Node, State: page.Ready, Wrong: !said.Ready || len(said.Problems) > 0, Answers: true, Reason: said.NotReady, Version: said.Version, Since: said.Since,
		Fabric: string(said.Fabric), PodMTU: said.PodMTU, Addresses: texts(said.Addresses), PodCIDRs: texts(said.PodCIDRs), Problems: len(said.Problems),
	}
	if !said.Ready {
		own.State = stateNotReady
		o.Findings = append(o.Findings, page.Finding{Nodes: []string{said.Node}, Text: "not ready: " + said.NotReady})
	}
	for _, u := range said.Pods {
		own.Pods = max(own.Pods, u.Used+u.Outside)
		own.Usage = append(own.Usage, page.Usage{Family: u.Family, Used: u.Used, Cooling: u.Cooling, Total: u.Total})
	}
	for _, g := range said.PeersStatus.brief().Joined {
		own.Joined = append(own.Joined, page.Group{Mode: g.Mode, Peers: g.Peers})
	}
	own.DataPath = said.FastPath.forPage()
	if b := said.BGP; b != nil {
		own.BGP = &page.Sessions{Peers: b.Peers, Established: b.Established}
	}
	if b := said.LoadBalancer; b != nil {
		own.Balancer = &page.Balancer{Leader: b.Leader, Here: b.Here}
	}
	o.Nodes = append(o.Nodes, own)
	for _, t := range said.Problems {
		o.Findings = append(o.Findings, t.finding(said.Node))
	}
	for _, p := range said.Peers {
		o.Nodes = append(o.Nodes, p.forPage())
	}
	slices.SortStableFunc(o.Nodes, func(a, b page.Node) int { return worstFirst(a.Wrong, b.Wrong) })
	return o, nil
}

func worstFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// finding is a problem as the page shows it.
func (t Trouble) finding(node string) page.Finding {
	var names []string
	for _, f := range t.Follows {
		names = append(names, problem.Consequence(f.Node, f.Object, f.Reason))
	}
	return page.Finding{
		Nodes: []string{node}, Text: problem.Sentence(t.Node, t.Object, t.Reason) + " [" + t.Kind + "]",
		Advice: strings.TrimSuffix(t.Advice+"; "+problem.Consequences(names), "; "),
	}
}

// forPage is which way flows take.
func (f FastPath) forPage() *page.DataPath {
	return &page.DataPath{Path: f.Datapath, Because: f.Because, Flows: f.Flows, Hits: f.Hits, Misses: f.Misses}
}

// forPage is a peer as this node sees it.
func (p PeerStatus) forPage() page.Node {
	n := page.Node{Name: p.Name, State: statePeer, Fabric: p.Mode, PodCIDRs: []string{}}
	if h := p.Health; h != nil && h.State == "lost" {
		n.State, n.Wrong, n.Reason = stateCutOff, true, "no probe is answered"
	}
	for _, w := range p.Ways {
		n.PodCIDRs = append(n.PodCIDRs, w.PodCIDR.String())
		if w.Mode == "" || !w.Present {
			n.State, n.Wrong, n.Reason = stateCutOff, true, "this node has no route to its pods "+w.PodCIDR.String()
		}
	}
	return n
}

func texts[T fmt.Stringer](items []T) (all []string) {
	for _, i := range items {
		all = append(all, i.String())
	}
	return all
}

// Ask returns what the agent says about something; of pods what is recorded.
func (s pageSource) Ask(ctx context.Context, _ string, about page.About, pod string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	switch about {
	case page.Peers:
		return askAgent(ctx, s.config.StateDir, "/status")
	case page.Flows:
		return askAgent(ctx, s.config.StateDir, FlowsWanted{Pod: pod, Limit: page.MostFlows}.question())
	case page.Services, page.Policies, page.BGP, page.Balancers:
		return askAgent(ctx, s.config.StateDir, "/status/"+string(about))
	case page.Pods:
		all, err := ListAttachedPods(s.config.StateDir, s.config.SysctlDir)
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		err = json.NewEncoder(&text).Encode(all)
		return text.Bytes(), err
	}
	return nil, errors.New("nobody knows about " + string(about))
}
