// Package demotest has what tests of demonstrations have in common.
package demotest

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/flatnet-cni/flatnet/test/binaries"
)

// Run is a demonstration, as [github.com/flatnet-cni/flatnet/test/report.Main] has it.
type Run func(ctx context.Context, w io.Writer, programs string) error

// Programs is the directory of what is demonstrated. The test's main has to have built it.
func Programs(t *testing.T) string {
	t.Helper()
	directory, err := binaries.BuildForTest()
	if err != nil {
		t.Fatal(err)
	}
	return directory
}

// LeavesNothing demands that a test leaves no namespace and no file.
func LeavesNothing(t *testing.T) {
	t.Helper()
	count := func() string {
		namespaces, _ := os.ReadDir("/run/netns")
		clusters, _ := os.ReadDir("/run/cluster")
		return fmt.Sprintf("%d namespaces, %d clusters", len(namespaces), len(clusters))
	}
	before := count()
	t.Cleanup(func() {
		if after := count(); after != before {
			t.Errorf("%s before, %s after", before, after)
		}
	})
}

// Shows demands that what a demonstration writes has these texts (regular expressions), and
// is as wide as a terminal at most.
func Shows(t *testing.T, run Run, texts ...string) {
	t.Helper()
	LeavesNothing(t)
	var out strings.Builder
	if err := run(t.Context(), &out, Programs(t)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range texts {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if columns := utf8.RuneCountInString(line); columns > 100 || strings.HasSuffix(line, " ") {
			t.Errorf("%d columns, or spaces at the end: %q", columns, line)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// Place is when a demonstration is interrupted.
type Place struct {
	At    string // what has been written last
	After time.Duration
}

// Interrupted demands that a demonstration leaves nothing, and says so, wherever it is
// interrupted. Where the machine is faster than the interruption, the run is complete, and
// its output ends so; "" where that cannot be.
func Interrupted(t *testing.T, run Run, complete string, places ...Place) {
	t.Helper()
	for _, p := range places {
		t.Run(fmt.Sprintf("%s %v", p.At, p.After), func(t *testing.T) {
			LeavesNothing(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &watch{text: p.At, then: func() {
				if p.After == 0 {
					cancel()
				} else {
					time.AfterFunc(p.After, cancel)
				}
			}}
			err := run(ctx, out, Programs(t))
			good, end := err == context.Canceled, "Nothing is left.\n\n"
			if err == nil && complete != "" {
				good, end = true, complete
			}
			if !good || !strings.HasSuffix(out.String(), end) {
				t.Errorf("interrupted: %v\n%s", err, out)
			}
		})
	}
}

// watch is a buffer that calls a function when a text has been written to it.
type watch struct {
	strings.Builder
	text string
	then func()
}

func (w *watch) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.then()
	}
	return w.Builder.Write(p)
}
