package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/kernels/outcome"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
)

// cell is a suite's outcome in few words.
func cell(s *outcome.Suite) string {
	if s == nil {
		return ""
	}
	text := fmt.Sprintf("%d passed", s.Count(outcome.Pass))
	if n := s.Count(outcome.Fail); n > 0 {
		text += fmt.Sprintf(", %d FAILED", n)
	}
	if s.Failure != "" {
		text += ", FAILED"
	}
	if n := s.Count(outcome.Skip); n > 0 {
		text += fmt.Sprintf(", %d skipped", n)
	}
	return fmt.Sprintf("%s, %.0f s", text, s.Took.Seconds())
}

// write writes the table, in Markdown, which is readable as it is; and below it
// every reason for a skipped test, what was not run, and every failure: last, for
// the end is what is on a terminal, and all that CI may keep.
func write(w io.Writer, columns []*column, suites []suite.Suite, full bool) {
	rows := [][]string{{"suite"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.Name())
	}
	release := []string{"`uname -r`"}
	took := []string{"all, with boot"}
	for _, c := range columns {
		release = append(release, c.Kernel.Release)
		took = append(took, c.Took.Round(time.Second).String())
	}
	rows = append(rows, release)
	for _, s := range suites {
		row := []string{s.Name}
		for _, c := range columns {
			row = append(row, cell(c.Suites[s.Name]))
		}
		rows = append(rows, row)
	}
	grid(w, append(rows, took))
	figures(w, columns, suites)
	skipped(w, columns, suites)
	if !full {
		leftOut(w, suites)
	}
	for _, c := range columns {
		for _, during := range c.Hung {
			fmt.Fprintf(w, "\n%s: a machine hung during %s, and another one ran it again; the console's log has what the kernel said.\n", c.Name(), during)
		}
		if len(c.Missing) > 0 {
			fmt.Fprintf(w, "\n%s was run without these programs: %s.\n", c.Name(), strings.Join(c.Missing, ", "))
		}
		if c.Kernel.Unverified != "" {
			fmt.Fprintf(w, "\nThe package of %s was not verified: %s.\n", c.Name(), c.Kernel.Unverified)
		}
	}
	failures(w, columns, suites)
}

// grid writes rows, the first of which is the heading.
func grid(w io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			width[i] = max(width[i], len(text))
		}
	}
	for i, row := range rows {
		fmt.Fprint(w, "|")
		for j, text := range row {
			fmt.Fprintf(w, " %-*s |", width[j], text)
		}
		fmt.Fprintln(w)
		if i == 0 {
			for _, n := range width {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", n+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

// figures writes what tests have measured, in a table of its own.
func figures(w io.Writer, columns []*column, suites []suite.Suite) {
	rows := [][]string{{"measured under emulation"}}
	row := map[string]int{}
	for i, c := range columns {
		rows[0] = append(rows[0], c.Name())
		for _, s := range suites {
			if c.Suites[s.Name] == nil {
				continue
			}
			for _, test := range c.Suites[s.Name].Tests {
				names, numbers := test.Figures()
				for j, name := range names {
					if row[name] == 0 {
						row[name] = len(rows)
						rows = append(rows, append([]string{name}, make([]string, len(columns))...))
					}
					rows[row[name]][i+1] = numbers[j]
				}
			}
		}
	}
	if len(rows) > 1 {
		fmt.Fprintln(w)
		grid(w, rows)
	}
}

// failures writes each failure with what the test said, and then a list of all.
func failures(w io.Writer, columns []*column, suites []suite.Suite) {
	const enough = 60 // lines of a test's output
	var list []string
	for _, c := range columns {
		if c.Failure != "" {
			list = append(list, c.Name()+": "+c.Failure)
		}
		for _, s := range suites {
			ended := c.Suites[s.Name]
			if ended == nil {
				continue
			}
			of := c.Name() + " " + s.Name
			if ended.Failure != "" {
				fmt.Fprintf(w, "\n%s: %s\n", of, indent(ended.Failure))
				first, _, _ := strings.Cut(ended.Failure, "\n")
				list = append(list, of+": "+first)
			}
			for _, test := range ended.Tests {
				if test.Result == outcome.Fail {
					output := test.Output[max(0, len(test.Output)-enough):]
					fmt.Fprintf(w, "\n%s FAILED: %s (%.0f s)\n%s\n", of, test.Name,
						test.Took.Seconds(), indent(strings.Join(output, "\n")))
					list = append(list, of+" "+test.Name+": "+test.Complaint())
				}
			}
		}
	}
	if len(list) > 0 {
		fmt.Fprintf(w, "\nFailed:\n\n- %s\n", strings.Join(list, "\n- "))
	}
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// skipped writes each reason once, with the tests and kernels that it is of.
func skipped(w io.Writer, columns []*column, suites []suite.Suite) {
	type skip struct{ suite, test, reason string }
	var skips []skip
	kernels := map[skip][]string{}
	for _, s := range suites {
		for _, c := range columns {
			if c.Suites[s.Name] == nil {
				continue
			}
			for _, test := range c.Suites[s.Name].Tests {
				if test.Result != outcome.Skip {
					continue
				}
				this := skip{s.Name, test.Name, test.Reason()}
				if kernels[this] == nil {
					skips = append(skips, this)
				}
				kernels[this] = append(kernels[this], c.Name())
			}
		}
	}
	type line struct{ suite, reason, kernels string }
	var lines []line
	tests := map[line][]string{}
	for _, s := range skips {
		of := line{s.suite, s.reason, strings.Join(kernels[s], ", ")}
		if len(kernels[s]) == len(columns) {
			of.kernels = "all"
		}
		if tests[of] == nil {
			lines = append(lines, of)
		}
		tests[of] = append(tests[of], s.test)
	}
	if len(lines) > 0 {
		fmt.Fprintln(w, "\nSkipped:")
		fmt.Fprintln(w)
	}
	for _, l := range lines {
		fmt.Fprintf(w, "- %s%s: %s (%s)\n", l.suite, fewOrHowMany(tests[l]), l.reason, l.kernels)
	}
}

// fewOrHowMany names tests, or says how many there are.
func fewOrHowMany(tests []string) string {
	const few = 3
	if len(tests) > few {
		return fmt.Sprintf(", %d tests", len(tests))
	}
	return " " + strings.Join(tests, ", ")
}

// leftOut writes what of the suites is not run on every kernel.
func leftOut(w io.Writer, suites []suite.Suite) {
	if !slices.ContainsFunc(suites, func(s suite.Suite) bool { return s.Why != "" }) {
		return
	}
	fmt.Fprintln(w, "\nNot run (`-full` runs it):")
	fmt.Fprintln(w)
	for _, s := range suites {
		if s.Why != "" {
			fmt.Fprintf(w, "- of %s: %s\n", s.Name, s.Why)
		}
	}
}
