package main

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

// section is a part of the report that has been measured.
type section struct {
	outline
	table    table
	compared table // the figures beside each other, where a list of ratios does not show it
	ratios   []ratio
}

// String is the section's tables in Markdown.
func (s section) String() string {
	verdicts := table{head: []string{"", "measured", "target", "reached"}}
	for _, r := range s.ratios {
		verdicts.rows = append(verdicts.rows, r.row())
	}
	text := s.table.String()
	for _, t := range []table{s.compared, verdicts} {
		if len(t.rows) > 0 {
			text += "\n" + t.String()
		}
	}
	return text
}

// ratio is a figure with its target.
type ratio struct {
	what   string
	shown  string // the figure; empty if it was not measured
	target string // empty if there is none
	met    bool
}

// row shows the ratio as a row of a table.
func (r ratio) row() []string {
	reached := ""
	switch {
	case r.shown == "":
		return []string{r.what, "not measured", r.target, reached}
	case r.target != "" && r.met:
		reached = "yes"
	case r.target != "":
		reached = "no"
	}
	return []string{r.what, r.shown, r.target, reached}
}

// atMost compares the medians of two samples with a limit, 0 if there is none.
func atMost(what string, ours, theirs sample, limit float64) ratio {
	r := ratio{what: what}
	if limit > 0 {
		r.target = fmt.Sprintf("≤ %g", limit)
	}
	if len(ours) > 0 && len(theirs) > 0 {
		quotient := float64(ours.median()) / float64(theirs.median())
		r.shown, r.met = figure(quotient), quotient <= limit
	}
	return r
}

// figure shows a quotient with the digits that mean something.
func figure(quotient float64) string {
	if quotient < 0.1 {
		return fmt.Sprintf("%.4f", quotient)
	}
	return fmt.Sprintf("%.2f", quotient)
}

// informative compares the medians of two samples where there is no target.
func informative(what string, ours, theirs sample) ratio { return atMost(what, ours, theirs, 0) }

// table is one of text.
type table struct {
	head []string
	rows [][]string
}

// String is the table in Markdown.
func (t table) String() string { return page.Table(t.head, t.rows) }
