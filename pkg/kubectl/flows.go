package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

var flowsCommand = command{
	name: "flows", does: "which flows take the fast path, the largest first, with pods' names", timeout: 15 * time.Second,
	prepare: func(set *flag.FlagSet, o *options) func(context.Context, *client, io.Writer, io.Writer) (int, error) {
		o.outputs = []string{"json", "wide"}
		set.StringVar(&o.output, "o", "", "`json` for machines, or wide, with interfaces and both directions")
		pod := set.String("pod", "", "only the flows of this `pod`, namespace/name or name")
		node := set.String("node", "", "ask only this `node`; default: all, or those at the ends of the pod's flows")
		limit := set.Int("limit", 100, "no more flows than these")
		return func(ctx context.Context, c *client, out, _ io.Writer) (int, error) {
			if *limit < 1 {
				return 0, fmt.Errorf("--limit %d shows no flow", *limit)
			}
			var of *end
			if *pod != "" {
				of = &end{}
				var err error
				if of.namespace, of.name, err = podNamed(*pod, o.podNamespace()); err != nil {
					return 0, err
				}
				if err := of.find(ctx, c); err != nil {
					return 0, err
				}
			}
			s, err := c.look(ctx, o.namespace)
			if err != nil {
				return 0, err
			}
			found := &flowsFound{limit: *limit, Unknown: s.Unknown}
			if err := found.gather(ctx, o.asker(c), s, of, *node); err != nil {
				return 0, err
			}
			if o.output == "json" {
				return found.exit(), printJSON(out, found)
			}
			found.print(out, o.output == "wide", time.Now())
			return found.exit(), nil
		}
	},
}

// nodeFlows is what is read of `flatnetd flows -o json`.
type nodeFlows struct {
	Node     string       `json:"node"`
	Datapath string       `json:"datapath"`
	Because  string       `json:"because"`
	Flows    []flowOfNode `json:"flows"`
	More     int          `json:"more"`
}

// flowOfNode is a flow as a node remembers it. From is the end with the lesser address,
// on each node.
type flowOfNode struct {
	Protocol      string         `json:"protocol"`
	From          netip.AddrPort `json:"from"`
	To            netip.AddrPort `json:"to"`
	There         direction      `json:"there"`
	Back          direction      `json:"back"`
	Since         time.Time      `json:"since"`
	Active        bool           `json:"active"`
	FromPod       string         `json:"fromPod"`
	ToPod         string         `json:"toPod"`
	FromNode      string         `json:"fromNode"`
	ToNode        string         `json:"toNode"`
	FromInterface string         `json:"fromInterface"`
	ToInterface   string         `json:"toInterface"`
}

// direction is what took the fast path from one end to the other.
type direction struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func (f flowOfNode) bytes() uint64 { return f.There.Bytes + f.Back.Bytes }

// flowsFound is what `kubectl flatnet flows` prints.
type flowsFound struct {
	Flows []flowFound `json:"flows"` // those with the most bytes first
	// LeftOut is how many more there are, by the nodes' count: one between two nodes
	// counts at both.
	LeftOut int `json:"leftOut,omitempty"`
	// Without are nodes that remember none, with the reason.
	Without []withoutFlows `json:"without,omitempty"`
	Unknown []string       `json:"unknown,omitempty"`

	limit    int
	complete map[string]bool // nodes that have told all of their flows
}

type withoutFlows struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

func (f *flowsFound) exit() int {
	if len(f.Unknown) > 0 {
		return exitUnknown
	}
	return exitFine
}

// gather asks the nodes: those of a pod's flows, the named one, or all.
func (f *flowsFound) gather(ctx context.Context, a asker, s *survey, of *end, node string) error {
	f.complete = map[string]bool{}
	words := []string{"flows", "-o", "json", "--limit", strconv.Itoa(f.limit)}
	sites, asked := s.Sites, map[string]bool{}
	if node != "" {
		if err := s.restrict(node); err != nil {
			return fmt.Errorf("--node %s: the cluster has no such node", node)
		}
		sites = s.Sites
	}
	if of != nil {
		switch {
		case of.pod == nil:
			return fmt.Errorf("pod %s: %w", of, of.missing)
		case len(of.addresses) == 0:
			return fmt.Errorf("pod %s has no address yet", of)
		}
		words = append(words, "--address", joined(of.addresses))
		if node == "" {
			sites = named(s.Sites, map[string]bool{of.pod.Spec.NodeName: true})
		}
	}
	var answers []nodeFlows
	for len(sites) > 0 {
		more := f.ask(ctx, a, sites, words)
		answers = append(answers, more...)
		for _, at := range sites {
			asked[at.Node] = true
		}
		if of == nil || node != "" {
			break
		}
		// The flows' other ends: what these nodes remember is the other half.
		others := map[string]bool{}
		for _, n := range more {
			for _, one := range n.Flows {
				others[one.FromNode], others[one.ToNode] = true, true
			}
		}
		sites = slices.DeleteFunc(named(s.Sites, others), func(at site) bool { return asked[at.Node] })
	}
	f.merge(answers)
	return nil
}

// joined is how flatnetd reads several addresses.
func joined(addresses []netip.Addr) string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return strings.Join(all, ",")
}

// named are the sites of some nodes.
func named(sites []site, nodes map[string]bool) (some []site) {
	for _, at := range sites {
		if nodes[at.Node] {
			some = append(some, at)
		}
	}
	return some
}

// ask asks nodes, and notes which do not say.
func (f *flowsFound) ask(ctx context.Context, a asker, sites []site, words []string) (answers []nodeFlows) {
	said, faults := make([]nodeFlows, len(sites)), make([]error, len(sites))
	a.each(ctx, sites, func(ctx context.Context, at site) ([]byte, error) { return a.flatnetd(ctx, at, words...) }, func(i int, raw []byte, err error) {
		if err == nil {
			err = json.Unmarshal(raw, &said[i])
		}
		faults[i] = err
	})
	for i, at := range sites {
		var exit exitError
		switch err := faults[i]; {
		case at.Fault != nil && at.Fault.State == stateNotSelected:
		case at.Fault != nil:
			f.Unknown = append(f.Unknown, at.Node+": "+at.Fault.Reason)
		case errors.As(err, &exit) && strings.Contains(exit.said, `unknown command "flows"`):
			f.Without = append(f.Without, withoutFlows{at.Node, "its flatnetd is of a version without fast path"})
		case err != nil:
			f.Unknown = append(f.Unknown, at.Node+": "+unanswered(at, err).Reason)
		case said[i].Because != "":
			f.Without = append(f.Without, withoutFlows{at.Node, "the data path is the kernel's, because " + said[i].Because})
		default:
			said[i].Node = at.Node
			f.complete[at.Node] = said[i].More == 0
			answers = append(answers, said[i])
		}
	}
	return answers
}
