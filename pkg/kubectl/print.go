package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// columns are those of the table. Nobody writes to it.
var columns = []struct {
	title string
	of    func(n nodeStatus, now time.Time) string
	some  bool // not every cluster does that: it is left out where no node has anything
}{
	{title: "NODE", of: func(n nodeStatus, _ time.Time) string { return n.Node }},
	{title: "STATE", of: func(n nodeStatus, _ time.Time) string { return n.State }},
	{title: "VERSION", of: func(n nodeStatus, _ time.Time) string { return n.Version }},
	{title: "UP", of: func(n nodeStatus, now time.Time) string {
		if n.Since.IsZero() {
			return ""
		}
		return duration.HumanDuration(now.Sub(n.Since))
	}},
	{title: "FABRIC", of: func(n nodeStatus, _ time.Time) string { return n.Fabric }},
	{title: "PODS", of: func(n nodeStatus, _ time.Time) string {
		if n.Version == "" {
			return ""
		}
		return fmt.Sprint(n.Pods)
	}},
	{title: "PEERS", of: func(n nodeStatus, _ time.Time) string { return n.peers() }},
	{title: "DATAPATH", some: true, of: func(n nodeStatus, _ time.Time) string {
		if n.DataPath == nil {
			return ""
		}
		return n.DataPath.Path
	}},
	{title: "BGP", some: true, of: func(n nodeStatus, _ time.Time) string { return n.BGP.String() }},
	{title: "PROBLEMS", of: func(n nodeStatus, _ time.Time) string {
		if n.Version == "" {
			return ""
		}
		return fmt.Sprint(len(n.Problems) + n.MoreProblems)
	}},
}

// peers counts them by how they are joined, and names the few that are not as most.
func (n nodeStatus) peers() string {
	var words []string
	for i, g := range n.Joined {
		word := fmt.Sprintf("%d %s", g.Peers, g.Mode)
		if !g.reached() || i > 0 && g.Peers <= mostShown {
			word += few(g.Names, g.Peers)
		}
		words = append(words, word)
	}
	if n.Missing != nil {
		words = append(words, fmt.Sprintf("%d MISSING%s", n.Missing.Peers, few(n.Missing.Names, n.Missing.Peers)))
	}
	if n.Unwell != nil {
		words = append(words, fmt.Sprintf("%d LOSING%s", n.Unwell.Peers, few(n.Unwell.Names, n.Unwell.Peers)))
	}
	return strings.Join(words, ", ")
}

// printFindings writes what is wrong, for people.
func (o *overview) printFindings(w io.Writer) {
	fmt.Fprintln(w, o.headline())
	for _, u := range o.Unknown {
		fmt.Fprintf(w, "  ? %s\n", u)
	}
	for _, f := range o.findings() {
		f.print(w)
	}
	for _, note := range o.differences() {
		fmt.Fprintf(w, "  note: %s\n", note)
	}
}

// print writes the overview for people: what is wrong, and then every node.
func (o *overview) print(w io.Writer, now time.Time) {
	o.printFindings(w)
	if len(o.Nodes) == 0 {
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	lines := make([][]string, len(o.Nodes)+1)
	for _, c := range columns {
		cells, said := []string{c.title}, false
		for _, n := range o.Nodes {
			cell := c.of(n, now)
			said = said || cell != ""
			cells = append(cells, cmp.Or(cell, "-"))
		}
		if c.some && !said {
			continue
		}
		for i, cell := range cells {
			lines[i] = append(lines[i], cell)
		}
	}
	for _, cells := range lines {
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	table.Flush()
	o.LoadBalancer.print(w)
}

// headline counts nodes by their states.
func (o *overview) headline() string {
	counts := map[string]int{}
	var pods uint64
	with := 0
	for _, n := range o.Nodes {
		counts[n.State]++
		pods += n.Pods
		if len(n.Problems) > 0 {
			with++
		}
	}
	var words []string
	for _, state := range order {
		if counts[state] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[state], state))
		}
	}
	text := fmt.Sprintf("%s: %s; %s", counted(len(o.Nodes), "node"), strings.Join(words, ", "), counted(int(pods), "pod"))
	switch {
	case len(o.Nodes) == 0:
		return "no node is seen"
	case with > 0:
		return text + "; problems at " + counted(with, "node")
	case o.exit() == exitFine:
		return text + "; no problems"
	}
	return text
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// versions are those of flatnetd, with the nodes that have them.
func (o *overview) versions() *gathered {
	g := &gathered{}
	for _, n := range o.Nodes {
		if n.Version != "" {
			g.add(n.Node, n.Version, "")
		}
	}
	return g
}

// differences are what nodes do not have in common, which is no mistake by itself: an
// update is under way, or somebody has forgotten to restart what has an older
// configuration.
func (o *overview) differences() (notes []string) {
	for _, d := range []struct {
		what string
		of   func(nodeStatus) string
		odd  func(nodeStatus) bool // to be noted even if all nodes are so
	}{
		{what: "version", of: func(n nodeStatus) string { return n.Version }},
		{what: "fabric", of: func(n nodeStatus) string { return n.Fabric }},
		{what: "pod MTU", of: func(n nodeStatus) string {
			if n.PodMTU == 0 {
				return ""
			}
			return fmt.Sprint(n.PodMTU)
		}},
		{what: "data path", of: func(n nodeStatus) string { return n.DataPath.String() }, odd: func(n nodeStatus) bool { return n.DataPath.unwanted() }},
	} {
		g := &gathered{}
		for _, n := range o.Nodes {
			if value := d.of(n); value != "" {
				g.add(n.Node, value, "")
			}
		}
		if len(g.all) < 2 && (d.odd == nil || !slices.ContainsFunc(o.Nodes, d.odd)) {
			continue
		}
		var words []string
		for i, f := range g.sorted() {
			at := someOf(f.nodes, len(f.nodes))
			if i == 0 {
				at = counted(len(f.nodes), "node") // most need no names
			}
			words = append(words, f.text+" at "+at)
		}
		notes = append(notes, d.what+": "+strings.Join(words, ", "))
	}
	return append(notes, skew(o.Program, o.versions().sorted())...)
}
