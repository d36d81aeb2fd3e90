package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// finding is something that is wrong at one or more nodes, or that is worth a line.
type finding struct {
	text   string
	advice string
	nodes  []string // where it is so, in the order of the overview
}

// findings are what is wrong, each once: nodes that are not as they should be, in the
// order of the overview, and then problems, by how many nodes have them.
func (o *overview) findings() []finding {
	faults, problems := &gathered{}, &gathered{}
	for _, n := range o.Nodes {
		switch {
		case n.State == stateReady || n.State == stateNotSelected:
		case n.State == stateNotReady:
			faults.add(n.Node, "not ready: "+relative(n.Node, n.Reason), "")
		default:
			faults.add(n.Node, n.State+": "+n.Reason, n.Advice)
		}
		if n.Missing != nil {
			faults.add(n.Node, "routes to peers are missing in the kernel", fmt.Sprintf("`kubectl -n %s exec POD -- flatnetd status` lists them", o.Namespace))
		}
		if len(n.Unread) > 0 {
			faults.add(n.Node, answer{Version: n.Version}.misread(n.Unread...), misreadAdvice)
		}
		for _, t := range n.Problems {
			problems.add(n.Node, t.sentence(n.Node), t.advice(n.Node))
		}
		if n.MoreProblems > 0 {
			problems.add(n.Node, "has more problems than are listed here", "`flatnetd status` on the node lists all")
		}
	}
	return append(faults.all, problems.sorted()...)
}

// gathered are findings by their text.
type gathered struct {
	all []finding
	at  map[string]int
}

func (g *gathered) add(node, text, advice string) {
	if g.at == nil {
		g.at = map[string]int{}
	}
	at, known := g.at[text]
	if !known {
		at = len(g.all)
		g.at[text] = at
		g.all = append(g.all, finding{text: text, advice: advice})
	}
	f := &g.all[at]
	if n := len(f.nodes); n == 0 || f.nodes[n-1] != node {
		f.nodes = append(f.nodes, node)
	}
}

func (g *gathered) sorted() []finding {
	slices.SortStableFunc(g.all, func(a, b finding) int { return cmp.Compare(len(b.nodes), len(a.nodes)) })
	return g.all
}

// sentence says the problem so that all nodes with the same say the same.
func (t trouble) sentence(reporter string) string {
	of := t.Node
	if of == reporter {
		of = "" // whoever has it
	}
	return relative(reporter, problem.Sentence(of, t.Object, t.Reason)) + " [" + t.Kind + "]"
}

func (t trouble) advice(reporter string) string {
	var names []string
	for _, f := range t.Follows {
		names = append(names, problem.Consequence(f.Node, f.Object, f.Reason))
	}
	return strings.TrimSuffix(relative(reporter, t.Advice)+"; "+problem.Consequences(names), "; ")
}

// relative says "this node" where a text names the node that says it.
func relative(node, text string) string {
	words := strings.Split(text, "node "+node)
	whole := words[0]
	for _, rest := range words[1:] {
		if rest != "" && isPartOfName(rest[0]) || strings.HasSuffix(whole, "-") {
			whole += "node " + node + rest // another node's name that begins so
			continue
		}
		whole += "this node" + rest
	}
	return whole
}

func isPartOfName(c byte) bool {
	return isDigit(c) || c == '-' || c == '.' || c >= 'a' && c <= 'z'
}

// print writes a finding for people.
func (f finding) print(w io.Writer) {
	fmt.Fprintf(w, "  - %s: %s\n", someOf(f.nodes, len(f.nodes)), f.text)
	if f.advice != "" {
		fmt.Fprintf(w, "    %s\n", f.advice)
	}
}

// mostShown is how many names a line has.
const mostShown = 3

// someOf names the first of a number of nodes: "n1", "3 nodes (n1 n2 n3)".
func someOf(names []string, of int) string {
	if of == 1 && len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d nodes%s", of, few(names, of))
}

// few are the first names in brackets.
func few(names []string, of int) string {
	if len(names) == 0 {
		return ""
	}
	shown := names[:min(mostShown, len(names))]
	more := ""
	if of > len(shown) {
		more = " …"
	}
	return " (" + strings.Join(shown, " ") + more + ")"
}
