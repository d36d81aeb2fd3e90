package outcome

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// As a test binary prints it, "^" for the marker.
const printed = `^=== RUN   TestOne
    one_test.go:12: a remark
^--- PASS: TestOne (0.50s)
^=== RUN   TestTwo
^=== RUN   TestTwo/left
^=== PAUSE TestTwo/left
^=== RUN   TestTwo/right
^=== CONT  TestTwo/left
some output without an end^=== NAME  TestTwo/right
    two_test.go:7: the kernel has none
^--- FAIL: TestTwo (0.10s)
    ^--- PASS: TestTwo/left (0.00s)
    ^--- SKIP: TestTwo/right (0.00s)
^=== NAME  
^=== RUN   TestThree
    three_test.go:7: wrong
^--- FAIL: TestThree (0.00s)
^=== RUN   TestFour
panic: help
`

func TestReader(t *testing.T) {
	var r Reader
	for line := range strings.Lines(strings.ReplaceAll(printed, "^", marker)) {
		r.Line(line)
	}
	suite := r.End("exit status 2", time.Second)
	var got []string
	for _, test := range suite.Tests {
		got = append(got, fmt.Sprintf("%s %s %q", test.Result, test.Name, test.Reason()))
	}
	want := []string{
		`PASS TestOne "a remark"`,
		`FAIL TestTwo "no reason given"`,
		`PASS TestTwo/left "some output without an end"`,
		`SKIP TestTwo/right "the kernel has none"`,
		`FAIL TestThree "wrong"`,
		`FAIL TestFour "it has not ended"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if suite.Failure != "" || !suite.Failed() {
		t.Errorf("the failing tests explain the status, but %q is what failed", suite.Failure)
	}
}

func TestComplaint(t *testing.T) {
	for want, output := range map[string][]string{
		"a_test.go:3: wrong": {"    a_test.go:3: wrong", "    lab.go:1: what a helper knows", "        of it"},
		notEnded:             {"    a_test.go:3: a remark", notEnded},
		"help":               {"    lab.go:1: help"},
	} {
		if got := (&Test{Output: output}).Complaint(); got != want {
			t.Errorf("of %q: %q, want %q", output, got, want)
		}
	}
}

func TestFailureOfTheWhole(t *testing.T) {
	var r Reader
	r.Line("netlab: this needs root\n")
	if suite := r.End("exit status 1", 0); suite.Failure != "exit status 1\nnetlab: this needs root" {
		t.Errorf("got %q", suite.Failure)
	}
}
