package main

import (
	"fmt"
	"strings"
)

// Report is a line that the machine writes to its port.
type Report struct {
	Row   string `json:"row,omitempty"`
	Took  int    // milliseconds, of the action
	Whole int    // milliseconds after which all paths were right for good, -1 if they were not
	Noise int    // milliseconds that an answer took though nothing but the machine was in its way
	Paths []Outcome
	// Repairs are what flatnetd has mended meanwhile, by kind of object.
	Repairs  map[string]int
	Problems []string // in its status at the end of the row
	Log      []string // lines of its log, of level warning and above
	Error    string   // what is not as it should be
	End      bool     // nothing comes after this line
	Reboot   bool     // but the machine has more to say once it has booted again
}

// noise is how long an answer may take at least on the emulated machine though
// nothing is wrong.
const noise = 400

func (r Report) String() string {
	var b strings.Builder
	verdict := "all right"
	switch {
	case r.Error != "":
		verdict = r.Error
	case r.Whole < 0:
		verdict = "NOT RIGHT AGAIN"
	case r.Whole > 0:
		verdict = fmt.Sprintf("right again after %d ms", r.Whole)
	}
	fmt.Fprintf(&b, "%-44s took %5d ms  %s\n", r.Row, r.Took, verdict)
	for _, p := range r.Paths {
		var parts []string
		if p.Lost > 0 {
			state := fmt.Sprintf("from %d to %d ms", p.First, p.Last)
			if p.Broken {
				state = fmt.Sprintf("from %d ms on", p.First)
			}
			parts = append(parts, fmt.Sprintf("new: %d of %d wrong, %s (%s)", p.Lost, p.Tries, state, p.Why))
		}
		switch {
		case p.End != "":
			parts = append(parts, fmt.Sprintf("established: %s at %d ms", p.End, p.GapAt+p.Gap))
		case p.Gap > r.Noise:
			parts = append(parts, fmt.Sprintf("established: stood for %d ms at %d", p.Gap, p.GapAt))
		}
		if len(parts) > 0 {
			fmt.Fprintf(&b, "    %-14s %s\n", p.Path, strings.Join(parts, "; "))
		}
	}
	if len(r.Repairs) > 0 {
		fmt.Fprintf(&b, "    repairs: %v\n", r.Repairs)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "    problem: %s\n", p)
	}
	for _, l := range r.Log {
		fmt.Fprintf(&b, "    log: %s\n", l)
	}
	return b.String()
}
