package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// document is the status of a node, put together of the parts of its features.
type document struct {
	head     Head
	parts    []feature.Part
	problems ProblemsStatus
	brief    bool // the parts' short documents
}

// Head is what the agent says of itself.
type Head struct {
	Node     string    `json:"node"`
	Version  string    `json:"version"`
	Since    time.Time `json:"since"` // when flatnetd began
	Ready    bool      `json:"ready"`
	NotReady string    `json:"notReady,omitempty"` // why
}

// ProblemsStatus are all that keeps the network from being as it should.
type ProblemsStatus struct {
	Problems []Trouble `json:"problems"`
}

// Trouble is a problem, what to do about it, and what follows from it.
type Trouble struct {
	Kind    string    `json:"kind"` // as docs/operations.md lists them
	Node    string    `json:"node,omitempty"`
	Object  string    `json:"object,omitempty"`
	Reason  string    `json:"reason"`
	Advice  string    `json:"advice"`
	Follows []Trouble `json:"follows,omitempty"` // none of these has any more
}

func troubleOf(p problem.Problem) Trouble {
	t := Trouble{Kind: p.Kind().String(), Node: p.Node(), Object: p.Object(), Reason: p.Reason(), Advice: p.Advice()}
	for _, f := range p.Follows() {
		t.Follows = append(t.Follows, troubleOf(f))
	}
	return t
}

// print writes a problem for people.
func (t Trouble) print(w io.Writer) {
	fmt.Fprintf(w, "  - %s [%s]\n    %s\n", problem.Sentence(t.Node, t.Object, t.Reason), t.Kind, t.Advice)
	var names []string
	for _, f := range t.Follows {
		names = append(names, problem.Consequence(f.Node, f.Object, f.Reason))
	}
	if text := problem.Consequences(names); text != "" {
		fmt.Fprintf(w, "    %s\n", text)
	}
}

func (a *Agent) status(ctx context.Context) document {
	d := document{head: Head{Node: a.config.NodeName, Version: a.config.Version, Since: a.began}, problems: ProblemsStatus{[]Trouble{}}}
	reason := a.unready()
	if d.head.Ready = reason == nil; !d.head.Ready {
		d.head.NotReady = reason.Error()
	}
	for _, f := range a.features {
		if f.Status != nil {
			d.parts = append(d.parts, f.Status(ctx))
		}
	}
	for _, p := range a.currentProblems() {
		d.problems.Problems = append(d.problems.Problems, troubleOf(p))
	}
	return d
}

// MarshalJSON makes one object of the fields of all parts.
func (d document) MarshalJSON() ([]byte, error) {
	objects := []any{d.head}
	for _, p := range d.parts {
		switch {
		case d.brief && p.Brief != nil:
			objects = append(objects, p.Brief)
		case p.Document != nil:
			objects = append(objects, p.Document)
		}
	}
	var fields [][]byte
	for _, o := range append(objects, d.problems) {
		raw, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encoding %T: %w", o, err)
		}
		if len(raw) > len("{}") {
			fields = append(fields, raw[1:len(raw)-1])
		}
	}
	return slices.Concat([]byte("{"), bytes.Join(fields, []byte(",")), []byte("}")), nil
}

// print writes the status for people.
func (d document) print(w io.Writer, now time.Time) {
	state := "ready"
	if !d.head.Ready {
		state = "NOT READY: " + d.head.NotReady
	}
	fmt.Fprintf(w, "node %s: %s (flatnetd %s, up %s)\n", d.head.Node, state, d.head.Version, since(d.head.Since, now))
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, p := range d.parts {
		for _, r := range p.Rows {
			fmt.Fprintf(table, "  %s\t%s\n", r.Name, r.Value)
		}
	}
	table.Flush()
	for _, p := range d.parts {
		if p.Table != nil {
			fmt.Fprintln(w)
			p.Table(w, now)
		}
	}
	problems := d.problems.Problems
	if len(problems) == 0 {
		fmt.Fprintln(w, "\nno problems")
		return
	}
	fmt.Fprintf(w, "\nproblems: %d\n", len(problems))
	for _, p := range problems {
		p.print(w)
	}
}

func list[T any](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(items), "[]")
}

// since is a duration for people: one or two units.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.String()
}
