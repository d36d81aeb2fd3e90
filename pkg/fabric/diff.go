package fabric

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Diff returns what turns one set of entries into another, in an order in which
// no packet is lost: first what is new, and before each object those that it
// relies on; a route that leads elsewhere is replaced in one step; then what is
// no longer wanted, in the reverse order.
func Diff(have, want map[string]Entry) []kernel.Change {
	return diff(have, maps.All(want), func(place string) bool { _, is := want[place]; return is })
}

// diff is Diff where what is as it should be may be left out of both. What is wanted
// in a place is told by wanted alone if nothing has to be made of it.
func diff(have map[string]Entry, want iter.Seq2[string, Entry], wanted func(place string) bool) []kernel.Change {
	var made, removed []ranked
	for place, w := range want {
		h, there := have[place]
		switch {
		case !there:
			made = append(made, ranked{kernel.Change{Verb: kernel.Add, Object: w.Object}, rank(w.Object), place})
		case h.Object != w.Object:
			made = append(made, ranked{kernel.Change{Verb: kernel.Put, Object: w.Object}, rank(w.Object), place})
			if _, isRule := w.Object.(kernel.Rule); isRule {
				// Rules of one place but another priority are not replaced
				// by the kernel.
				removed = append(removed, ranked{kernel.Change{Verb: kernel.Delete, Object: h.Object}, rank(h.Object), place})
			}
		}
	}
	for place, h := range have {
		if !wanted(place) {
			removed = append(removed, ranked{kernel.Change{Verb: kernel.Delete, Object: h.Object}, rank(h.Object), place})
		}
	}
	slices.SortFunc(made, compareRanked)
	slices.SortFunc(removed, func(a, b ranked) int { return compareRanked(b, a) })
	changes := make([]kernel.Change, 0, len(made)+len(removed))
	for _, r := range append(made, removed...) {
		changes = append(changes, r.Change)
	}
	return changes
}

type ranked struct {
	kernel.Change
	rank  int
	place string
}

func compareRanked(a, b ranked) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.place, b.place))
}

// rank orders objects by what they rely on.
func rank(o kernel.Object) int {
	switch o := o.(type) {
	case kernel.Tunnel:
		return 0
	case kernel.Address:
		return 1
	case kernel.Neighbour:
		return 2
	case kernel.Forward:
		return 3
	case kernel.Rule:
		return 5
	case kernel.Route:
		if o.Table == kernel.FabricTable {
			return 4
		}
	}
	return 6
}
