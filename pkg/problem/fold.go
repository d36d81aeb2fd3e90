package problem

// Fold puts every problem that needs what another one breaks below that one, or
// below what that one follows from itself. Causes come in the order in which they
// were, before them those of which there are consequences; no problem is lost.
func Fold(all []Problem) []Problem {
	broken := map[Thing]int{} // by the first that breaks it
	for i, p := range all {
		for _, t := range p.facts.Breaks {
			if _, known := broken[t]; !known {
				broken[t] = i
			}
		}
	}
	below := make(map[int][]Problem)
	var roots []int
	for i, p := range all {
		if root := rootOf(i, all, broken); root != i {
			below[root] = append(below[root], p)
		} else {
			roots = append(roots, i)
		}
	}
	folded := make([]Problem, 0, len(roots))
	for _, with := range []bool{true, false} {
		for _, i := range roots {
			if follows := below[i]; len(follows) > 0 == with {
				p := all[i]
				p.follows = follows
				folded = append(folded, p)
			}
		}
	}
	return folded
}

// rootOf returns what a problem follows from in the end: itself where it follows
// from none. Two that break what the other needs have no cause; the one asked
// for is its own then.
func rootOf(i int, all []Problem, broken map[Thing]int) int {
	seen := map[int]bool{i: true}
	at := i
	for {
		next, found := causeOf(at, all[at], broken)
		if !found {
			return at
		}
		if seen[next] {
			return i
		}
		seen[next] = true
		at = next
	}
}

func causeOf(i int, p Problem, broken map[Thing]int) (cause int, found bool) {
	for _, t := range p.facts.Needs {
		if cause, is := broken[t]; is && cause != i {
			return cause, true
		}
	}
	return 0, false
}
