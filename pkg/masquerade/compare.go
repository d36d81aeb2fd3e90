package masquerade

import (
	"fmt"
	"slices"
)

// repair is what makes one content another.
type repair struct {
	// found describes each difference, the elements of one set together.
	found []string
	count int // objects and elements that differ

	remake bool // the whole table, for what nothing less mends
	wake   bool // the table has flags, which switch it off

	dropSets, addSets     []set   // of the wrong type: in both
	dropChains, addChains []chain // of the wrong kind: in both
	refill                []chain // whose rules are to be written again
	edits                 []edit  // sets whose elements differ
}

// edit is a difference of one set.
type edit struct {
	set            set
	extra, missing []span
}

// compare finds what differs. Have is nil where there is no table.
func compare(have *content, want content) repair {
	var r repair
	switch {
	case have == nil && want.empty():
	case have == nil:
		r.remake = true
		r.note("table is missing")
	case want.empty():
		r.remake = true
		r.note("table is not wanted")
	default:
		if have.dormant {
			r.wake = true
			r.note("table has flags")
		}
		r.compareSets(have.sets, want.sets)
		r.compareChains(have.chains, want.chains)
		// The kernel wakes a table and changes its chains, but not at once.
		r.remake = r.wake && len(r.addChains)+len(r.dropChains) > 0
	}
	return r
}

func (r *repair) note(format string, arg ...any) {
	r.found = append(r.found, fmt.Sprintf(format, arg...))
	r.count++
}

func (r *repair) compareSets(have, want []set) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h set) bool { return h.name == w.name })
		if i < 0 {
			r.note("set %s is missing", w.name)
			r.addSets = append(r.addSets, w)
			continue
		}
		h := have[i]
		if h.odd || h.is6 != w.is6 || h.interval != w.interval {
			r.note("set %s is of another type", w.name)
			r.dropSets, r.addSets = append(r.dropSets, h), append(r.addSets, w)
			continue
		}
		r.compareElements(h, w)
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w set) bool { return h.name == w.name }) {
			r.note("set %s is not wanted", h.name)
			r.dropSets = append(r.dropSets, h)
		}
	}
}

func (r *repair) compareElements(have, want set) {
	extra, missing := difference(have.elements, want.elements)
	if len(extra)+len(missing) == 0 {
		return
	}
	r.edits = append(r.edits, edit{want, extra, missing})
	r.count += len(extra) + len(missing)
	if len(missing) > 0 {
		r.found = append(r.found, fmt.Sprintf("set %s lacks %d of %d: %s", want.name, len(missing), len(want.elements), list(missing)))
	}
	if len(extra) > 0 {
		r.found = append(r.found, fmt.Sprintf("set %s has %d too many: %s", want.name, len(extra), list(extra)))
	}
}

func (r *repair) compareChains(have, want []chain) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h chain) bool { return h.name == w.name })
		if i < 0 {
			r.note("chain %s is missing", w.name)
			r.addChains = append(r.addChains, w)
			continue
		}
		h := have[i]
		if h.drops || h.kind != w.kind || h.hook != w.hook || h.priority != w.priority {
			r.note("chain %s is not %s", w.name, w.head)
			r.dropChains, r.addChains = append(r.dropChains, h), append(r.addChains, w)
			continue
		}
		same := slices.EqualFunc(h.rules, w.rules, rule.equal)
		if !same {
			r.found = append(r.found, fmt.Sprintf("chain %s has other rules", w.name))
			r.count += max(1, wrong(h.rules, w.rules))
		}
		// A set that a rule names cannot be dropped.
		if !same || len(r.dropSets) > 0 {
			r.refill = append(r.refill, w)
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w chain) bool { return h.name == w.name }) {
			r.note("chain %s is not wanted", h.name)
			r.dropChains = append(r.dropChains, h)
		}
	}
}

// wrong counts the rules that only one of the two has.
func wrong(have, want []rule) (n int) {
	for _, pair := range [][2][]rule{{have, want}, {want, have}} {
		for _, a := range pair[0] {
			if !slices.ContainsFunc(pair[1], a.equal) {
				n++
			}
		}
	}
	return n
}
