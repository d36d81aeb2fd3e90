package agent

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// A problem is logged once when it comes up, or has another reason, and once when
// it is over; what follows from another is not, as long as that lasts.
func TestProblemsAreLoggedOnce(t *testing.T) {
	cause := problem.VXLANNumber.Of(problem.Facts{Node: "n1", Object: "cause", Reason: "is there", Breaks: []problem.Thing{"x"}})
	follower := problem.FabricObject.Of(problem.Facts{Node: "n2", Object: "follower", Reason: "fails", Needs: []problem.Thing{"x"}})
	more := problem.FabricObject.Of(problem.Facts{Node: "n3", Object: "more", Reason: "fails", Needs: []problem.Thing{"x"}})
	source := func(reason string) problem.Problem {
		return problem.NodesSource.Of(problem.Facts{Object: "source", Reason: reason})
	}
	var many []problem.Problem
	for i := range 2 * mostProblemsLogged {
		many = append(many, problem.NodeEntry.Of(problem.Facts{Object: fmt.Sprintf("entry %03d", i), Reason: "is wrong"}))
	}
	told := told{}
	for i, step := range []struct {
		now  []problem.Problem
		want string // the lines
	}{
		{nil, ""},
		{[]problem.Problem{follower, cause}, "problem cause is there 1"},
		{[]problem.Problem{follower, cause}, ""},
		{[]problem.Problem{cause, follower, more}, ""},
		{[]problem.Problem{more, follower}, "problem more fails 0, problem follower fails 0, over node n1: cause: is there"},
		{[]problem.Problem{more, follower, cause}, "problem cause is there 2"}, // they last, though below it
		{[]problem.Problem{more, follower}, "over node n1: cause: is there"},
		{[]problem.Problem{more}, "over node n2: follower: fails"},
		{nil, "over node n3: more: fails"},
		{[]problem.Problem{source("line 5")}, "problem source line 5 0"},
		{[]problem.Problem{source("line 7")}, "problem source line 7 0"},
		{[]problem.Problem{source("line 7"), source("line 9")}, "problem source line 9 0"},
		{[]problem.Problem{source("line 7")}, "over source: line 9"},
		{[]problem.Problem{source("line 7")}, ""},
		{nil, "over source: line 7"},
		{nil, ""},
	} {
		var lines recorded
		told.tell(slog.New(&lines), problem.Fold(step.now))
		if got := strings.Join(lines, ", "); got != step.want {
			t.Errorf("step %d: logged %s, want %s", i, got, step.want)
		}
	}
	for _, now := range [][]problem.Problem{many, many, nil} {
		var lines recorded
		told.tell(slog.New(&lines), problem.Fold(now))
		if len(lines) > mostProblemsLogged+1 {
			t.Errorf("%d lines", len(lines))
		}
		if changed := len(lines) > 0; changed != slices.Contains(lines, "more problems than are logged one by one; flatnetd status has all") {
			t.Errorf("%d lines end in %s", len(lines), lines[len(lines)-1])
		}
	}
	if len(told) > 0 {
		t.Errorf("what is over is remembered: %v", told)
	}
}
