package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// flowFound is a flow with what the nodes at both ends say of it.
type flowFound struct {
	Protocol string         `json:"protocol"`
	From     netip.AddrPort `json:"from"`
	FromPod  string         `json:"fromPod,omitempty"`
	FromNode string         `json:"fromNode,omitempty"`
	To       netip.AddrPort `json:"to"`
	ToPod    string         `json:"toPod,omitempty"`
	ToNode   string         `json:"toNode,omitempty"`
	// Bytes and Packets are those of both directions, on the node where the most of them
	// took the fast path.
	Packets uint64       `json:"packets"`
	Bytes   uint64       `json:"bytes"`
	Since   time.Time    `json:"since"`
	Nodes   []flowOnNode `json:"nodes"` // where it is remembered
	// Not are nodes of its ends that do not remember it: they translate it, or have
	// switched it off, or not seen both directions yet.
	Not []string `json:"not,omitempty"`
}

// flowOnNode is what one node remembers.
type flowOnNode struct {
	Node          string    `json:"node"`
	Active        bool      `json:"active"` // in both directions
	There         direction `json:"there"`
	Back          direction `json:"back"`
	FromInterface string    `json:"fromInterface,omitempty"`
	ToInterface   string    `json:"toInterface,omitempty"`
}

// merge makes one of what two nodes say of a flow.
func (f *flowsFound) merge(answers []nodeFlows) {
	type key struct {
		protocol string
		from, to netip.AddrPort
	}
	at := map[key]int{}
	f.Flows = []flowFound{}
	for _, n := range answers {
		f.LeftOut += n.More
		for _, one := range n.Flows {
			k := key{one.Protocol, one.From, one.To}
			i, known := at[k]
			if !known {
				i = len(f.Flows)
				at[k] = i
				f.Flows = append(f.Flows, flowFound{Protocol: one.Protocol, From: one.From, To: one.To, Since: one.Since})
			}
			f.Flows[i].add(n.Node, one)
		}
	}
	slices.SortFunc(f.Flows, func(a, b flowFound) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Protocol, b.Protocol))
	})
	if more := len(f.Flows) - f.limit; more > 0 {
		f.LeftOut += more
		f.Flows = f.Flows[:f.limit]
	}
	for i := range f.Flows {
		f.Flows[i].not(f.complete)
	}
}

func (f *flowFound) add(node string, one flowOfNode) {
	f.FromPod, f.ToPod = cmp.Or(f.FromPod, one.FromPod), cmp.Or(f.ToPod, one.ToPod)
	f.FromNode, f.ToNode = cmp.Or(f.FromNode, one.FromNode), cmp.Or(f.ToNode, one.ToNode)
	f.Packets, f.Bytes = max(f.Packets, one.There.Packets+one.Back.Packets), max(f.Bytes, one.bytes())
	if one.Since.Before(f.Since) {
		f.Since = one.Since
	}
	f.Nodes = append(f.Nodes, flowOnNode{node, one.Active, one.There, one.Back, one.FromInterface, one.ToInterface})
}

// not notes which of its ends' nodes have told all that they remember, and not this one.
func (f *flowFound) not(complete map[string]bool) {
	for _, node := range []string{f.FromNode, f.ToNode} {
		if complete[node] && !slices.Contains(f.Not, node) && !slices.ContainsFunc(f.Nodes, func(n flowOnNode) bool { return n.Node == node }) {
			f.Not = append(f.Not, node)
		}
	}
}

// fast says on which nodes it takes the fast path.
func (f flowFound) fast() string {
	var words []string
	for _, n := range f.Nodes {
		word := n.Node
		if !n.Active {
			word += " (not yet)"
		}
		words = append(words, word)
	}
	for _, node := range f.Not {
		words = append(words, "not "+node)
	}
	return strings.Join(words, ", ")
}

// endWords is a pod and its node, as far as that is known.
func endWords(pod, node string) string {
	if pod == "" && node != "" {
		return "on " + node
	}
	return cmp.Or(pod, "-")
}

// print writes it for people.
func (f *flowsFound) print(w io.Writer, wide bool, now time.Time) {
	if len(f.Flows) == 0 {
		fmt.Fprintln(w, "no flow takes the fast path")
	} else {
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		more := ""
		if wide {
			more = "\tTHERE/BACK\tINTERFACES"
		}
		fmt.Fprintf(table, "PROTOCOL\tFROM\tPOD\tTO\tPOD\tPACKETS\tBYTES\tAGE\tFAST ON%s\n", more)
		for _, one := range f.Flows {
			if wide {
				more = "\t" + one.wide()
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s%s\n", one.Protocol, one.From, endWords(one.FromPod, one.FromNode), one.To, endWords(one.ToPod, one.ToNode),
				one.Packets, one.Bytes, duration.HumanDuration(now.Sub(one.Since)), one.fast(), more)
		}
		table.Flush()
	}
	if f.LeftOut > 0 {
		fmt.Fprintf(w, "%d with fewer bytes are left out, of which some may be counted twice; --limit shows more\n", f.LeftOut)
	}
	without := &gathered{}
	for _, n := range f.Without {
		without.add(n.Node, n.Reason, "")
	}
	for _, r := range without.sorted() {
		fmt.Fprintf(w, "note: no flow is remembered at %s: %s\n", someOf(r.nodes, len(r.nodes)), r.text)
	}
	for _, u := range f.Unknown {
		fmt.Fprintf(w, "? %s\n", u)
	}
}

// wide is what each node counts, and the interfaces where packets come in.
func (f flowFound) wide() string {
	var counts, links []string
	for _, n := range f.Nodes {
		counts = append(counts, fmt.Sprintf("%s %d/%d", n.Node, n.There.Bytes, n.Back.Bytes))
		links = append(links, fmt.Sprintf("%s %s/%s", n.Node, cmp.Or(n.FromInterface, "-"), cmp.Or(n.ToInterface, "-")))
	}
	return strings.Join(counts, ", ") + "\t" + strings.Join(links, ", ")
}
