// Package report writes what a demonstration shows: plain text of at most 100 columns.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is one that is being written.
type Report struct {
	W        io.Writer
	headings int
}

// Title begins a report.
func (r *Report) Title(text string) { fmt.Fprintf(r.W, "%s\n\n", text) }

// Heading begins a block, with its number.
func (r *Report) Heading(text string) {
	r.headings++
	text = fmt.Sprintf("%d. %s", r.headings, text)
	fmt.Fprintf(r.W, "%s\n%s\n\n", text, strings.Repeat("-", len(text)))
}

// Text is a paragraph.
func (r *Report) Text(text string) { fmt.Fprintf(r.W, "%s\n\n", text) }

// Indented is what a program says.
func (r *Report) Indented(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(r.W, "%s\n", strings.TrimRight("    "+line, " \n"))
	}
	fmt.Fprintln(r.W)
}

// Commands shows what a reader could type instead; a line in parentheses is no
// command.
func (r *Report) Commands(lines ...string) {
	for _, line := range lines {
		if !strings.HasPrefix(line, "(") {
			line = "$ " + line
		}
		fmt.Fprintf(r.W, "    %s\n", line)
	}
	fmt.Fprintln(r.W)
}

// Table writes rows in columns; the first row is the head.
func (r *Report) Table(rows [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	for line := range strings.Lines(text.String()) {
		fmt.Fprintf(r.W, "    %s\n", strings.TrimRight(line, " \n"))
	}
	fmt.Fprintln(r.W)
}

// Milliseconds is a time as a table has it.
func Milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1e3) }
