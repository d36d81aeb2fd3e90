package main

import (
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/kernels/debian"
	"github.com/flatnet-cni/flatnet/test/kernels/outcome"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
)

func TestTable(t *testing.T) {
	skip := &outcome.Test{Name: "TestX", Result: outcome.Skip, Output: []string{"    x_test.go:1: no such thing"}}
	lacks := func(name string) *outcome.Test {
		return &outcome.Test{Name: name, Result: outcome.Skip, Output: []string{"    x_test.go:2: the kernel lacks it"}}
	}
	columns := []*column{
		{Kernel: &debian.Kernel{Name: "5.10", Release: "5.10.0"}, Suites: map[string]*outcome.Suite{
			"a": {Tests: []*outcome.Test{{Result: outcome.Pass}, skip, lacks("TestP"), lacks("TestQ")}, Took: 2 * time.Second},
			"b": {Failure: "exit status 1"},
		}},
		{Kernel: &debian.Kernel{Name: "6.1", Release: "6.1.0"}, Suites: map[string]*outcome.Suite{
			"a": {Tests: []*outcome.Test{{Name: "TestY", Result: outcome.Fail, Output: []string{"    y_test.go:3: wrong", "    lab.go:1: a log", "        of it"}}, skip}},
			"b": {Tests: []*outcome.Test{
				{Name: "TestZ", Result: outcome.Pass, Output: []string{"    z_test.go:9: figure: ADD: 0.51"}},
				lacks("Test1"), lacks("Test2"), lacks("Test3"), lacks("Test4"),
			}},
		}},
	}
	var w strings.Builder
	write(&w, columns, []suite.Suite{{Name: "a"}, {Name: "b", Why: "it is long"}}, false)
	const want = "| suite          | 5.10                     | 6.1                                |\n" +
		"|----------------|--------------------------|------------------------------------|\n" +
		"| `uname -r`     | 5.10.0                   | 6.1.0                              |\n" +
		"| a              | 1 passed, 3 skipped, 2 s | 0 passed, 1 FAILED, 1 skipped, 0 s |\n" +
		"| b              | 0 passed, FAILED, 0 s    | 1 passed, 4 skipped, 0 s           |\n" +
		"| all, with boot | 0s                       | 0s                                 |\n" + `
| measured under emulation | 5.10 | 6.1  |
|--------------------------|------|------|
| ADD                      |      | 0.51 |

Skipped:

- a TestX: no such thing (all)
- a TestP, TestQ: the kernel lacks it (5.10)
- b, 4 tests: the kernel lacks it (6.1)

Not run (` + "`-full`" + ` runs it):

- of b: it is long

5.10 b:     exit status 1

6.1 a FAILED: TestY (0 s)
        y_test.go:3: wrong
        lab.go:1: a log
            of it

Failed:

- 5.10 b: exit status 1
- 6.1 a TestY: y_test.go:3: wrong
`
	if w.String() != want {
		t.Errorf("got\n%s\nwant\n%s", w.String(), want)
	}
	if !columns[0].Failed() || !columns[1].Failed() {
		t.Error("both have failed")
	}
}
