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
	// remake: the table has to be made anew, because an object is not there or
	// is not what it has to be.
	remake bool
	refill []chain // chains whose rules differ
	edits  []edit  // sets whose elements differ
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
		return r
	case have == nil:
		r.note("table is missing")
	case want.empty():
		r.note("table is not wanted")
	default:
		if have.dormant {
			r.note("table has flags")
		}
		r.compareSets(have.sets, want.sets)
		r.compareChains(have.chains, want.chains)
	}
	return r
}

// note adds a difference that only a new table mends.
func (r *repair) note(format string, arg ...any) {
	r.found = append(r.found, fmt.Sprintf(format, arg...))
	r.count++
	r.remake = true
}

func (r *repair) compareSets(have, want []set) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h set) bool { return h.name == w.name })
		if i < 0 {
			r.note("set %s is missing", w.name)
			continue
		}
		h := have[i]
		if h.odd || h.is6 != w.is6 || h.interval != w.interval {
			r.note("set %s is of another type", w.name)
			continue
		}
		extra, missing := difference(h.elements, w.elements)
		if len(extra)+len(missing) == 0 {
			continue
		}
		r.edits = append(r.edits, edit{w, extra, missing})
		r.count += len(extra) + len(missing)
		if len(missing) > 0 {
			r.found = append(r.found, fmt.Sprintf("set %s lacks %d of %d: %s", w.name, len(missing), len(w.elements), list(missing)))
		}
		if len(extra) > 0 {
			r.found = append(r.found, fmt.Sprintf("set %s has %d too many: %s", w.name, len(extra), list(extra)))
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w set) bool { return h.name == w.name }) {
			r.note("set %s is not ours", h.name)
		}
	}
}

func (r *repair) compareChains(have, want []chain) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h chain) bool { return h.name == w.name })
		if i < 0 {
			r.note("chain %s is missing", w.name)
			continue
		}
		h := have[i]
		if h.drops || h.kind != w.kind || h.hook != w.hook || h.priority != w.priority {
			r.note("chain %s is not %s", w.name, w.head)
			continue
		}
		if !slices.EqualFunc(h.rules, w.rules, rule.equal) {
			r.found = append(r.found, fmt.Sprintf("chain %s has other rules", w.name))
			r.count += max(1, wrong(h.rules, w.rules))
			r.refill = append(r.refill, w)
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w chain) bool { return h.name == w.name }) {
			r.note("chain %s is not ours", h.name)
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
