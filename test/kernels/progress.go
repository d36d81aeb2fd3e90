package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/flatnet-cni/flatnet/test/kernels/outcome"
	"github.com/flatnet-cni/flatnet/test/kernels/plan"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
)

// progress is what a machine has said so far: what has ended goes to its column.
type progress struct {
	column  *column
	log     io.Writer // all that tests print
	out     io.Writer // for people
	verbose bool
	running string          // the suite that has not ended
	reader  *outcome.Reader // of that
	hangs   error           // errHangs, once the machine has said so itself
}

// event takes a line of the machine's results.
func (p *progress) event(line string) (last bool) {
	var e plan.Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprintf(p.log, "(not an event: %q)\n", line)
		return false
	}
	name := p.column.Name()
	if e.Suite != "" && e.Suite != p.running {
		p.running, p.reader = e.Suite, &outcome.Reader{}
	}
	switch {
	case e.Kernel != "":
		p.column.Kernel.Release = e.Kernel
		fmt.Fprintf(p.out, "%-8s Linux %s is up\n", name, e.Kernel)
	case e.Hangs:
		p.hangs = fmt.Errorf("%w: %s", errHangs, e.Failure)
		return true
	case e.Ended:
		ended := p.reader.End(e.Failure, e.Took)
		p.running = ""
		p.column.Suites[e.Suite] = ended
		fmt.Fprintf(p.out, "%-8s %-18s %s\n", name, e.Suite, cell(ended))
	case e.Suite != "":
		p.reader.Line(e.Line)
		text := strings.ReplaceAll(e.Line, "\x16", "")
		fmt.Fprintf(p.log, "%s: %s", e.Suite, text)
		if p.verbose {
			fmt.Fprintf(p.out, "%-8s %-18s %s", name, e.Suite, text)
		}
	}
	return e.Done
}

// close takes those of suites that have no end as failed: the machine has ended before.
func (p *progress) close(suites []suite.Suite) {
	if p.running != "" {
		p.column.Suites[p.running] = p.reader.End("the machine ended before it", 0)
	}
	for _, s := range suites {
		if p.column.Suites[s.Name] == nil {
			p.column.Suites[s.Name] = &outcome.Suite{Failure: "the machine ended before it began"}
		}
	}
}
