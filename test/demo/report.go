package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report writes plain text of at most 100 columns.
type report struct {
	w        io.Writer
	headings int
}

func (r *report) title(text string) { fmt.Fprintf(r.w, "%s\n\n", text) }

// heading begins a block, with its number.
func (r *report) heading(text string) {
	r.headings++
	text = fmt.Sprintf("%d. %s", r.headings, text)
	fmt.Fprintf(r.w, "%s\n%s\n\n", text, strings.Repeat("-", len(text)))
}

func (r *report) text(text string) { fmt.Fprintf(r.w, "%s\n\n", text) }

func (r *report) indented(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(r.w, "%s\n", strings.TrimRight("    "+line, " \n"))
	}
	fmt.Fprintln(r.w)
}

// commands shows what a reader could type instead; a line in parentheses is no
// command.
func (r *report) commands(lines ...string) {
	for _, line := range lines {
		if !strings.HasPrefix(line, "(") {
			line = "$ " + line
		}
		fmt.Fprintf(r.w, "    %s\n", line)
	}
	fmt.Fprintln(r.w)
}

// table writes rows in columns; the first row is the head.
func (r *report) table(rows [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	for line := range strings.Lines(text.String()) {
		fmt.Fprintf(r.w, "    %s\n", strings.TrimRight(line, " \n"))
	}
	fmt.Fprintln(r.w)
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1e3) }

func microseconds(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1e6) }

func outOf(n int) string { return fmt.Sprintf("%d of %d", n, n) }
