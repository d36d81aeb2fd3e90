// Package outcome reads what a test binary prints with -test.v=test2json, and
// says which tests passed, which failed with what words, and why some were skipped.
package outcome

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result is how a test ended.
type Result string

const (
	Pass Result = "PASS"
	Fail Result = "FAIL"
	Skip Result = "SKIP"
)

// Test is one that was run.
type Test struct {
	Name   string
	Result Result
	Took   time.Duration
	Output []string
}

// Reason is what a test said last: why it was skipped.
func (t *Test) Reason() string {
	return cmp.Or(place.ReplaceAllString(t.last(anything), ""), "no reason given")
}

// Complaint is what a test that failed said last itself, or that it has not ended: what
// its helpers say behind that is what they know, not what is wrong.
func (t *Test) Complaint() string { return cmp.Or(t.last(complaint), t.Reason()) }

// last is the last line of a kind, "" where there is none.
func (t *Test) last(kind *regexp.Regexp) string {
	for _, line := range slices.Backward(t.Output) {
		if line = strings.TrimSpace(line); kind.MatchString(line) {
			return line
		}
	}
	return ""
}

// Figures are what a test has measured: lines "figure: NAME: NUMBER" of its output.
func (t *Test) Figures() (names, numbers []string) {
	for _, line := range t.Output {
		line = place.ReplaceAllString(strings.TrimSpace(line), "")
		if match := figure.FindStringSubmatch(line); match != nil {
			names, numbers = append(names, match[1]), append(numbers, match[2])
		}
	}
	return names, numbers
}

var figure = regexp.MustCompile(`^figure: (.+): ([0-9.]+)$`)

// place precedes what a test says.
var place = regexp.MustCompile(`^[\w.-]+\.go:\d+: `)

const notEnded = "it has not ended"

// Kinds of lines of a test's output.
var (
	anything  = regexp.MustCompile(`.`)
	complaint = regexp.MustCompile(`^([\w.-]+_test\.go:\d+: |` + notEnded + `$)`)
)

// Suite is a test binary's run.
type Suite struct {
	Tests   []*Test // leaves only: those that have no subtests, or failed by themselves
	Failure string  // of the whole: "" if its exit status was 0 or a test explains it
	Took    time.Duration
}

// Count is the number of tests that ended in a way.
func (s *Suite) Count(r Result) int {
	n := 0
	for _, test := range s.Tests {
		if test.Result == r {
			n++
		}
	}
	return n
}

// Failed says whether the suite is no success.
func (s *Suite) Failed() bool { return s.Failure != "" || s.Count(Fail) > 0 }

// Reader takes a binary's output line by line.
type Reader struct {
	tests   []*Test
	current *Test
	stray   []string // output of no test
}

// marker precedes the lines that are testing's own.
const marker = "\x16"

var verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)$`)

// Line takes a line of the output.
func (r *Reader) Line(text string) {
	text = strings.TrimRight(text, "\r\n")
	before, own, marked := strings.Cut(text, marker)
	// A verdict on a subtest is indented in front of its marker.
	if !marked || strings.TrimSpace(before) != "" {
		r.say(before)
	}
	if !marked {
		return
	}
	if match := verdict.FindStringSubmatch(strings.TrimSpace(own)); match != nil {
		test := r.test(match[2])
		test.Result = Result(match[1])
		if seconds, err := strconv.ParseFloat(match[3], 64); err == nil {
			test.Took = time.Duration(seconds * float64(time.Second))
		}
		r.current = test // what it said may follow
		return
	}
	if word, name, found := strings.Cut(strings.TrimPrefix(own, "=== "), " "); found {
		switch word {
		case "RUN", "CONT", "NAME", "PAUSE":
			r.current = r.test(strings.TrimSpace(name))
		}
	}
}

func (r *Reader) say(line string) {
	if r.current != nil {
		r.current.Output = append(r.current.Output, line)
	} else {
		r.stray = append(r.stray, line)
	}
}

func (r *Reader) test(name string) *Test {
	if name == "" {
		return nil
	}
	for _, test := range r.tests {
		if test.Name == name {
			return test
		}
	}
	test := &Test{Name: name}
	r.tests = append(r.tests, test)
	return test
}

// End returns the run's outcome; failure is what is known of its exit, "" for success.
func (r *Reader) End(failure string, took time.Duration) *Suite {
	suite := &Suite{Took: took}
	for _, test := range r.tests {
		if test.Result == "" {
			test.Result = Fail
			test.Output = append(test.Output, notEnded)
		}
	}
	for _, test := range r.tests {
		below := func(result Result) bool {
			return slices.ContainsFunc(r.tests, func(other *Test) bool {
				return strings.HasPrefix(other.Name, test.Name+"/") && (result == "" || other.Result == result)
			})
		}
		// One with subtests counts only if it failed with none of them.
		if below("") && (test.Result != Fail || below(Fail)) {
			continue
		}
		suite.Tests = append(suite.Tests, test)
	}
	if failure != "" && suite.Count(Fail) == 0 {
		suite.Failure = strings.TrimSpace(failure + "\n" + strings.Join(lastOf(r.stray, 20), "\n"))
	}
	return suite
}

func lastOf(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
