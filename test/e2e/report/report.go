// Package report writes what tests came to: a table for people, JUnit for
// programs.
package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Outcome of a test.
type Outcome string

// What a test can come to.
const (
	Pass Outcome = "pass"
	Fail Outcome = "FAIL"
	Skip Outcome = "skip"
)

// Result is what one test came to.
type Result struct {
	Group, Name string
	Outcome     Outcome
	// Detail is what a passed test measured, why one was skipped, or what went wrong.
	Detail   string
	Duration time.Duration
}

// Table writes one line a result, and the sums: "N passed, N failed, N skipped".
func Table(out io.Writer, results []Result) {
	for _, r := range results {
		line := fmt.Sprintf("%s  %6.1f s  %s: %s", r.Outcome, r.Duration.Seconds(), r.Group, r.Name)
		if detail := firstLine(r.Detail); detail != "" {
			line += ": " + detail
		}
		fmt.Fprintln(out, line)
	}
	passed, failed, skipped := Count(results)
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
}

// Count sums results up.
func Count(results []Result) (passed, failed, skipped int) {
	for _, r := range results {
		switch r.Outcome {
		case Pass:
			passed++
		case Fail:
			failed++
		case Skip:
			skipped++
		}
	}
	return passed, failed, skipped
}

func firstLine(s string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if rest != "" {
		line += " …"
	}
	return line
}

type suite struct {
	XMLName  xml.Name   `xml:"testsuite"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Skipped  int        `xml:"skipped,attr"`
	Cases    []testCase `xml:"testcase"`
}

type testCase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    float64  `xml:"time,attr"`
	Failure *message `xml:"failure"`
	Skipped *message `xml:"skipped"`
}

type message struct {
	Text string `xml:"message,attr"`
}

// JUnit writes results as the XML that CI systems read.
func JUnit(out io.Writer, name string, results []Result) error {
	s := suite{Name: name, Tests: len(results)}
	_, s.Failures, s.Skipped = Count(results)
	for _, r := range results {
		one := testCase{Class: r.Group, Name: r.Name, Time: r.Duration.Seconds()}
		switch r.Outcome {
		case Fail:
			one.Failure = &message{r.Detail}
		case Skip:
			one.Skipped = &message{r.Detail}
		}
		s.Cases = append(s.Cases, one)
	}
	raw, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JUnit report: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s%s\n", xml.Header, raw)
	return err
}
