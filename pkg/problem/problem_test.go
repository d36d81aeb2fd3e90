package problem

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// A kind says what it means and what to do, and the documentation says the same.
func TestEveryKindIsDescribed(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for k := range All() {
		if k.String() == "" || k.Meaning() == "" || k.Advice() == "" {
			t.Errorf("kind %d %q lacks a name, a meaning or an advice", k, k)
		}
		if names[k.String()] {
			t.Errorf("two kinds are called %s", k)
		}
		names[k.String()] = true
		if row := fmt.Sprintf("\n| `%s` | %s | %s |\n", k, k.Meaning(), k.Advice()); !strings.Contains(string(raw), row) {
			t.Errorf("docs/operations.md lacks the row%s", row)
		}
	}
	_, table, found := strings.Cut(string(raw), "\n| problem | meaning | what to do |\n|---|---|---|\n")
	if !found {
		t.Fatal("docs/operations.md has no table of problems")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for row := range strings.Lines(table) {
		if name := strings.Split(row, "`")[1]; !names[name] {
			t.Errorf("docs/operations.md has the problem %s, which there is not", name)
		}
	}
}

// A problem without an advice of its own has that of its kind.
func TestNoProblemIsWithoutAdvice(t *testing.T) {
	for k := range All() {
		if got := k.Of(Facts{Reason: "is broken"}).Advice(); got == "" || got != k.Advice() {
			t.Errorf("%s: advice %q", k, got)
		}
		if got := k.Of(Facts{Reason: "is broken", Advice: "mend it"}).Advice(); got != "mend it" {
			t.Errorf("%s: advice %q", k, got)
		}
	}
}

// outline is a list of problems as text, each with what follows from it.
func outline(all []Problem) string {
	var lines []string
	for _, p := range all {
		line := p.Object()
		for i, f := range p.Follows() {
			line += []string{" ← ", ", "}[min(i, 1)] + f.Object()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// relation makes a problem of "name: needs > breaks".
func relation(text string) Problem {
	name, things, _ := strings.Cut(text, ":")
	needs, breaks, _ := strings.Cut(things, ">")
	f := Facts{Object: name, Reason: "is broken"}
	for _, n := range strings.Fields(needs) {
		f.Needs = append(f.Needs, Thing(n))
	}
	for _, b := range strings.Fields(breaks) {
		f.Breaks = append(f.Breaks, Thing(b))
	}
	return FabricObject.Of(f)
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		name, problems, want string
	}{
		{"nothing", "", ""},
		{"one alone needs nothing", "a", "a"},
		{"what it needs is not broken", "a: x", "a"},
		{"the cause comes first", "other; a: link; cause: > link; b: link", "cause ← a, b; other"},
		{"a chain ends at its beginning", "c: y; b: x > y; a: > x", "a ← c, b"},
		{"the first that breaks it", "a: > x; b: > x; c: x", "a ← c; b"},
		{"one of two needs", "a: > y; c: x y", "a ← c"},
		{"a problem is not its own cause", "a: x > x; b: x", "a ← b"},
		{"two that need one another", "a: y > x; b: x > y", "a; b"},
		{"and what follows from these", "a: y > x; b: x > y; c: x", "a; b; c"},
	} {
		var all []Problem
		for text := range strings.SplitSeq(c.problems, "; ") {
			if text != "" {
				all = append(all, relation(text))
			}
		}
		if got := outline(Fold(all)); got != c.want {
			t.Errorf("%s: %s becomes %s, want %s", c.name, c.problems, got, c.want)
		}
	}
}

// Whatever the relations are, every problem is there once, and who follows from
// another needs something that is broken.
func TestFoldLosesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(70, 1))
	for range 5000 {
		all := make([]Problem, r.IntN(12))
		var want []string
		for i := range all {
			f := Facts{Object: fmt.Sprint(i), Reason: "is broken"}
			for range r.IntN(3) {
				f.Needs = append(f.Needs, Thing(fmt.Sprint(r.IntN(6))))
			}
			for range r.IntN(2) {
				f.Breaks = append(f.Breaks, Thing(fmt.Sprint(r.IntN(6))))
			}
			all[i] = FabricObject.Of(f)
			want = append(want, f.Object)
		}
		var got []string
		for _, p := range Fold(all) {
			got = append(got, p.Object())
			for _, f := range p.Follows() {
				got = append(got, f.Object())
				if len(f.Follows()) > 0 || !slices.ContainsFunc(f.facts.Needs, func(n Thing) bool {
					return slices.ContainsFunc(all, func(c Problem) bool { return slices.Contains(c.facts.Breaks, n) })
				}) {
					t.Fatalf("%+v follows from %+v", f, p)
				}
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%v of %v remain", got, want)
		}
	}
}

func TestSentences(t *testing.T) {
	p := NodeEntry.Of(Facts{Node: "n2", Object: "podCIDRs[0] 10.0.0.0/24", Reason: "overlaps"})
	if got := p.String(); got != "node n2: podCIDRs[0] 10.0.0.0/24: overlaps" {
		t.Error(got)
	}
	if p.Key() != NodeEntry.Of(Facts{Node: "n2", Object: "podCIDRs[0] 10.0.0.0/24", Reason: "is malformed"}).Key() || p.Key() == NodesSource.Of(Facts{Node: "n2", Object: "podCIDRs[0] 10.0.0.0/24"}).Key() {
		t.Errorf("key %q", p.Key())
	}
	for want, names := range map[string][]string{
		"": nil, "and 1 thing that follows from it: a": {"a"}, "and 3 things that follow from it: a; b; c": {"a", "b", "c"},
		"and 5 things that follow from it: a; b; c; and 2 more": {"a", "b", "c", "d", "e"},
	} {
		if got := Consequences(names); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
