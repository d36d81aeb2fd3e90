package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// trialResult is what `kubectl flatnet check` prints.
type trialResult struct {
	Agents    *overview    `json:"agents"`    // what flatnetd says of all nodes
	Namespace string       `json:"namespace"` // of the pods, which are removed
	Nodes     []string     `json:"nodes"`
	NotTried  []failedNode `json:"notTried,omitempty"`
	Questions []question   `json:"questions"`
}

// failedNode is a node without a pod to try.
type failedNode struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

func (r *trialResult) exit() int {
	paths, agents := r.exitOfPaths(), r.Agents.exit()
	if paths == exitWrong || agents == exitWrong {
		return exitWrong
	}
	return max(paths, agents)
}

// exitOfPaths is what was tried alone.
func (r *trialResult) exitOfPaths() int {
	unknown := false
	for _, q := range r.Questions {
		if q.Failure != "" && !q.unknown {
			return exitWrong
		}
		unknown = unknown || q.unknown
	}
	switch {
	case len(r.NotTried) > 0 || len(r.unserved()) > 0:
		return exitWrong
	case unknown || len(r.Questions) == 0:
		return exitUnknown
	}
	return exitFine
}

// unserved are the pods to which no connection to the Service has led, where nothing
// else is wrong with the Service.
func (r *trialResult) unserved() (pods []string) {
	answered := map[string]bool{}
	for _, q := range r.Questions {
		if q.Kind == byService {
			if q.Failure != "" {
				return nil
			}
			for _, pod := range q.answered {
				answered[strings.TrimSpace(pod)] = true
			}
		}
	}
	for i, node := range r.Nodes {
		failed := slices.ContainsFunc(r.NotTried, func(f failedNode) bool { return f.Node == node })
		if !failed && !answered[podOf(i)] {
			pods = append(pods, podOf(i)+" on "+node)
		}
	}
	return pods
}

// column is a kind of questions, of one family.
type column struct{ kind, family string }

// print writes it for people: what flatnetd says, a table of who reaches how many, and what
// is wrong.
func (r *trialResult) print(w io.Writer) {
	r.Agents.printFindings(w)
	fmt.Fprintln(w)
	var columns []column
	for _, kind := range kinds {
		for _, family := range []string{"IPv4", "IPv6", ""} {
			if slices.ContainsFunc(r.Questions, func(q question) bool { return q.Kind == kind && q.family() == family }) {
				columns = append(columns, column{kind, family})
			}
		}
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(table, "FROM")
	for _, c := range columns {
		fmt.Fprintf(table, "\t%s", strings.ToUpper(strings.TrimSpace(c.kind+" "+c.family)))
	}
	fmt.Fprintln(table)
	for _, node := range r.Nodes {
		fmt.Fprint(table, node)
		for _, c := range columns {
			fmt.Fprintf(table, "\t%s", r.cell(node, c))
		}
		fmt.Fprintln(table)
	}
	table.Flush()
	r.printFailures(w)
}

// cell counts what one node's questions of a kind came to.
func (r *trialResult) cell(node string, c column) string {
	good, all, unknown := 0, 0, 0
	for _, q := range r.Questions {
		if q.From != node || q.Kind != c.kind || q.family() != c.family {
			continue
		}
		all++
		switch {
		case q.unknown:
			unknown++
		case q.Failure == "":
			good++
		}
	}
	switch {
	case all == 0:
		return "-"
	case unknown == all:
		return "?"
	}
	return fmt.Sprintf("%d of %d", good, all)
}

func (r *trialResult) printFailures(w io.Writer) {
	failures := r.failures()
	if len(failures) == 0 {
		result := "all is well"
		if r.Agents.exit() != exitFine {
			result = "all paths work, but flatnetd is not well everywhere (above)"
		}
		fmt.Fprintf(w, "\n%s: %d nodes, %d paths\n", result, len(r.Nodes), len(r.Questions))
		return
	}
	fmt.Fprintln(w)
	for _, f := range failures {
		fmt.Fprintf(w, "  - %s\n", f)
	}
	if slices.ContainsFunc(r.Questions, func(q question) bool { return q.Kind == fullSize && q.Failure != "" && !q.unknown }) {
		fmt.Fprintln(w, "\nWhere only packets of full size are lost, the network between the nodes carries less than their\ninterfaces say: docs/fabric.md has more of the MTU.")
	}
}

// failures are what is wrong, in lines: those of one kind, to one node, for one reason
// together.
func (r *trialResult) failures() (lines []string) {
	for _, f := range r.NotTried {
		lines = append(lines, fmt.Sprintf("%s is not tried: %s", f.Node, f.Reason))
	}
	type group struct{ kind, family, to, reason string }
	g := map[group][]string{}
	var seen []group
	for _, q := range r.Questions {
		if q.Failure == "" {
			continue
		}
		key := group{q.Kind, q.family(), q.To, q.Failure}
		if q.Kind == nearby {
			key.to = "its second pod"
		}
		if g[key] == nil {
			seen = append(seen, key)
		}
		g[key] = append(g[key], q.From)
	}
	slices.SortStableFunc(seen, func(a, b group) int { return cmp.Compare(len(g[b]), len(g[a])) })
	for _, key := range seen {
		to := key.to
		if to == "" {
			to = "Service " + serviceName
		}
		kind := strings.TrimSpace(key.kind + " " + key.family)
		if key.kind == byService {
			kind = "by name"
		}
		lines = append(lines, fmt.Sprintf("from %s to %s, %s: %s", someOf(g[key], len(g[key])), to, kind, key.reason))
	}
	for _, pod := range r.unserved() {
		lines = append(lines, fmt.Sprintf("no connection to Service %s led to %s", serviceName, pod))
	}
	return lines
}
