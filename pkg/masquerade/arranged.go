package masquerade

import (
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// arranged keeps the spans of a list by family and in order, from one list to the
// next: what is new is put in its place among those that stay, and nothing is sorted
// again. The lists of a large cluster have ten thousand elements in the order of the
// nodes' names, and a change is one of four.
//
// The zero value is that of an empty list.
type arranged[T comparable] struct {
	list []T           // the one before, to which nobody may write
	all  [2]nft.Ranges // by family: of every element, in order
	kept [2]nft.Ranges // the same without those that lie in others
}

// familyOf returns the place of an address family.
func familyOf(is6 bool) int {
	if is6 {
		return 1
	}
	return 0
}

// arrange returns the spans of a list's elements by family, in order, without those
// that lie in another one: an interval set takes no overlaps. Neighbours stay apart,
// so that the coming and going of one node touches one element. What spanOf knows no
// span for is left out. A family in which nothing has changed is the same array as
// before.
func (a *arranged[T]) arrange(list []T, spanOf func(T) (nft.Range, bool)) (kept [2]nft.Ranges) {
	gone, come := byFamily(spanOf)(changes(a.list, list))
	a.list = list
	for f := range a.all {
		if len(gone[f])+len(come[f]) == 0 {
			continue
		}
		a.all[f] = merged(a.all[f], gone[f], come[f])
		a.kept[f] = outermost(a.all[f])
	}
	return a.kept
}

// byFamily makes spans of what is gone and has come.
func byFamily[T comparable](spanOf func(T) (nft.Range, bool)) func(gone, come []T) (g, c [2]nft.Ranges) {
	split := func(list []T) (spans [2]nft.Ranges) {
		for _, x := range list {
			if s, is := spanOf(x); is {
				f := familyOf(s.First.Is6())
				spans[f] = append(spans[f], s)
			}
		}
		return spans
	}
	return func(gone, come []T) (g, c [2]nft.Ranges) { return split(gone), split(come) }
}

// reach is how far changes looks for where two lists are the same again. A node
// rarely has more podCIDRs, or addresses.
const reach = 8

// changes returns elements without which two lists have the same ones as often. It
// finds few where a few at a time were replaced, have come or are gone; what it
// returns is right, if long, for any two lists.
func changes[T comparable](before, after []T) (gone, come []T) {
	for len(before) > 0 && len(after) > 0 {
		if before[0] == after[0] {
			before, after = before[1:], after[1:]
			continue
		}
		less, more := 1, 1
		for n := 1; n <= reach; n++ {
			b, a := n < len(before), n < len(after)
			if b && a && before[n] == after[n] {
				less, more = n, n
				break
			}
			if b && before[n] == after[0] {
				less, more = n, 0
				break
			}
			if a && before[0] == after[n] {
				less, more = 0, n
				break
			}
		}
		gone, before = append(gone, before[:less]...), before[less:]
		come, after = append(come, after[:more]...), after[more:]
	}
	return append(gone, before...), append(come, after...)
}

// order is that of spans in which the larger of two that begin alike comes first.
func order(a, b nft.Range) int {
	if c := a.First.Compare(b.First); c != 0 {
		return c
	}
	return b.Last.Compare(a.Last)
}

// merged returns ordered spans without those that are gone, each once, and with
// those that have come.
func merged(all, gone, come nft.Ranges) nft.Ranges {
	sort(gone, order)
	sort(come, order)
	next := make(nft.Ranges, 0, len(all)-len(gone)+len(come))
	upTo := func(s nft.Range) {
		at, _ := slices.BinarySearchFunc(all, s, order)
		next, all = append(next, all[:at]...), all[at:]
	}
	for len(gone) > 0 || len(come) > 0 {
		if len(come) == 0 || len(gone) > 0 && order(gone[0], come[0]) <= 0 {
			upTo(gone[0])
			gone, all = gone[1:], all[1:]
		} else {
			upTo(come[0])
			next, come = append(next, come[0]), come[1:]
		}
	}
	return append(next, all...)
}

// outermost returns ordered spans without those that lie in others: all of them,
// where none does. Two of prefixes nest or are disjoint.
func outermost(all nft.Ranges) nft.Ranges {
	inside := func(i int) bool { return !all[i-1].Last.Less(all[i].Last) }
	first := 1
	for first < len(all) && !inside(first) {
		first++
	}
	if first >= len(all) {
		return all
	}
	kept := slices.Clone(all[:first])
	for _, s := range all[first:] {
		if kept[len(kept)-1].Last.Less(s.Last) {
			kept = append(kept, s)
		}
	}
	return kept
}

// rangesOf returns the prefixes of one family in order, without those that lie
// in another one.
func rangesOf(prefixes []netip.Prefix, is6 bool) nft.Ranges {
	return new(arranged[netip.Prefix]).arrange(prefixes, prefixRange)[familyOf(is6)]
}

// prefixRange returns the addresses of a prefix, host bits or not.
func prefixRange(p netip.Prefix) (nft.Range, bool) { return nft.RangeOf(p), p.IsValid() }

// addressRange returns a single address.
func addressRange(a netip.Addr) (nft.Range, bool) {
	a = a.Unmap().WithZone("")
	return nft.Range{First: a, Last: a}, a.IsValid()
}

// sort leaves alone what is in order, which what a caller sorted before is.
func sort(all nft.Ranges, compare func(a, b nft.Range) int) {
	if !slices.IsSortedFunc(all, compare) {
		slices.SortFunc(all, compare)
	}
}
