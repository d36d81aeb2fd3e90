// Package report writes what a demonstration shows: plain text of at most 100 columns.
package report

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
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

// Steps shows one thing after the other. The first that fails is the error, as is the end
// of ctx. A lab's panic is a failure: see [netlab.Guarded].
func (r *Report) Steps(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := netlab.Guarded(func() error { return step(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// Done ends a report with what it came to.
func (r *Report) Done(took time.Duration, summary []string) {
	r.Text(fmt.Sprintf("Done in %.1f s:\n- %s", took.Seconds(), strings.Join(summary, "\n- ")))
}

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
