package service

import (
	"net/netip"
	"slices"
)

// roster is a port's endpoints, each with a number from 0 up to how many there are.
// These are the indices of the maps of endpoints. There is no gap among them, so
// that connections are balanced evenly.
//
// Which endpoint has which number depends on what was before. Were they numbered in
// order, one that goes would give each that follows another number, and thousands of
// elements would have to be written again. So one that comes takes the number of one
// that goes, and where more go than come, those with the last numbers fill the gaps:
// what is written depends on the change, and not on how many endpoints there are. What
// an earlier process has left in the kernel is taken over by [roster.adopt].
//
// A roster does not change but for that. What a later one has in common with it is
// the same pages in memory, so that neither copying nor comparing takes long. One
// without endpoints is nil.
type roster struct {
	pages [][]netip.AddrPort // the endpoints by number, all but the last of pageSize
	order []uint16           // the numbers in the order of their endpoints
}

// pageSize is how many endpoints are copied where one changes: 4 kB.
const pageSize = 128

// newRoster numbers endpoints, which are sorted, in their order.
func newRoster(sorted []netip.AddrPort) *roster {
	if len(sorted) == 0 {
		return nil
	}
	r := &roster{order: make([]uint16, len(sorted)), pages: make([][]netip.AddrPort, 0, (len(sorted)+pageSize-1)/pageSize)}
	for page := range slices.Chunk(sorted, pageSize) {
		r.pages = append(r.pages, page)
	}
	for i := range r.order {
		r.order[i] = uint16(i)
	}
	return r
}

// size returns how many endpoints there are, [maximumEndpoints] at most.
func (r *roster) size() int {
	if r == nil {
		return 0
	}
	return len(r.order)
}

// at returns the endpoint with a number, which there has to be.
func (r *roster) at(number uint16) netip.AddrPort { return r.pages[number/pageSize][number%pageSize] }

// place returns where an endpoint is in the order, or would be.
func (r *roster) place(at netip.AddrPort) (place int, is bool) {
	if r == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(r.order, at, func(number uint16, at netip.AddrPort) int { return r.at(number).Compare(at) })
}

// has reports whether an endpoint is one of them.
func (r *roster) has(at netip.AddrPort) bool {
	_, is := r.place(at)
	return is
}

// sorted returns the endpoints in order.
func (r *roster) sorted() []netip.AddrPort {
	all := make([]netip.AddrPort, r.size())
	for i := range all {
		all[i] = r.at(r.order[i])
	}
	return all
}

// become returns a roster of these endpoints, which are sorted, with as many of the
// numbers that they have as can be.
func (r *roster) become(wanted []netip.AddrPort) *roster {
	if r == nil {
		return newRoster(wanted)
	}
	var gone, come []netip.AddrPort
	pair(r.sorted(), wanted, func(a, b *netip.AddrPort) int { return a.Compare(*b) }, func(b, a *netip.AddrPort) {
		switch {
		case a == nil:
			gone = append(gone, *b)
		case b == nil:
			come = append(come, *a)
		}
	})
	return r.replace(gone, come)
}

// replace returns a roster without those that are gone, which all are in it, and
// with those that come, none of which is; both are sorted.
func (r *roster) replace(gone, come []netip.AddrPort) *roster {
	if len(gone)+len(come) == 0 {
		return r
	}
	if r == nil {
		return newRoster(come)
	}
	before := r.size()
	size := before - len(gone) + len(come)
	if size == 0 {
		return nil
	}
	places := make([]int, len(gone)) // of those that go
	free := make([]int, len(gone))   // their numbers
	for i, g := range gone {
		places[i], _ = r.place(g)
		free[i] = int(r.order[places[i]])
	}
	slices.Sort(free)
	next := r.resized(size)
	numbers := make([]uint16, len(come)) // of those that come
	for i, c := range come {
		number := before + i - len(free)
		if i < len(free) {
			number = free[i]
		}
		numbers[i] = uint16(number)
		next.set(numbers[i], c)
	}
	order := r.order
	if len(free) > len(come) {
		order = r.fill(next, free[len(come):])
	}
	return &roster{next.pages, rearranged(order, places, func(yield func(place int, number uint16)) {
		for i, c := range come {
			place, _ := r.place(c)
			yield(place, numbers[i])
		}
	}, size)}
}

// fill gives the numbers that are left over, sorted, to endpoints whose own are too
// great for how many there will be. It returns the order with their new numbers.
func (r *roster) fill(next *draft, free []int) (order []uint16) {
	order = r.order
	last := r.size()
	for i, end := 0, len(free); i < end && free[i] < next.size; i++ {
		for last--; end > i && last == free[end-1]; last-- {
			end--
		}
		if i == 0 {
			order = slices.Clone(order)
		}
		moves := r.at(uint16(last))
		place, _ := r.place(moves)
		order[place] = uint16(free[i])
		next.set(order[place], moves)
	}
	return order
}

// draft is the pages of a roster that is being made from another one.
type draft struct {
	pages [][]netip.AddrPort
	own   []bool // the pages that the other one does not have
	size  int
}

// resized returns a draft for so many endpoints, with those of the roster.
func (r *roster) resized(size int) *draft {
	n := (size + pageSize - 1) / pageSize
	d := &draft{make([][]netip.AddrPort, n), make([]bool, n), size}
	for i := range d.pages {
		var page []netip.AddrPort
		if i < len(r.pages) {
			page = r.pages[i]
		}
		length := min(pageSize, size-i*pageSize)
		if d.own[i] = length > len(page); d.own[i] {
			longer := make([]netip.AddrPort, length)
			copy(longer, page)
			page = longer
		}
		d.pages[i] = page[:length:length]
	}
	return d
}

// set gives a number to an endpoint.
func (d *draft) set(number uint16, at netip.AddrPort) {
	i := number / pageSize
	if !d.own[i] {
		d.pages[i], d.own[i] = slices.Clone(d.pages[i]), true
	}
	d.pages[i][number%pageSize] = at
}

// rearranged returns the order without what is at some places, and with the numbers
// that come before others; both are sorted by place.
func rearranged(order []uint16, without []int, with func(yield func(place int, number uint16)), size int) []uint16 {
	made := make([]uint16, 0, size)
	from := 0
	until := func(place int) {
		for len(without) > 0 && without[0] < place {
			made = append(made, order[from:without[0]]...)
			from, without = without[0]+1, without[1:]
		}
		made = append(made, order[from:place]...)
		from = place
	}
	with(func(place int, number uint16) {
		until(place)
		made = append(made, number)
	})
	until(len(order))
	return made
}

// differ calls yield for every number below the greater of two sizes whose endpoint is
// another one; that of a number which there is not is not valid.
func (r *roster) differ(o *roster, yield func(number int, before, after netip.AddrPort)) {
	if r == o {
		return
	}
	page := func(r *roster, i int) []netip.AddrPort {
		if r == nil || i >= len(r.pages) {
			return nil
		}
		return r.pages[i]
	}
	for i := 0; ; i++ {
		before, after := page(r, i), page(o, i)
		if len(before) == 0 && len(after) == 0 {
			return
		}
		if len(before) == len(after) && &before[0] == &after[0] {
			continue
		}
		for j := range max(len(before), len(after)) {
			var b, a netip.AddrPort
			if j < len(before) {
				b = before[j]
			}
			if j < len(after) {
				a = after[j]
			}
			if a != b {
				yield(i*pageSize+j, b, a)
			}
		}
	}
}

// equal reports whether two rosters have the same endpoints with the same numbers.
func (r *roster) equal(o *roster) bool {
	same := r.size() == o.size()
	r.differ(o, func(int, netip.AddrPort, netip.AddrPort) { same = false })
	return same
}

// adopt gives the endpoints the numbers that they have elsewhere, as far as can be. It
// changes the roster, and so nobody may have written of it.
func (r *roster) adopt(have map[uint32]netip.AddrPort) {
	at := make([]netip.AddrPort, r.size())
	settled := make([]bool, r.size()) // by place
	settle := func(number int, e netip.AddrPort) {
		if place, is := r.place(e); is && !settled[place] && !at[number].IsValid() {
			at[number], settled[place] = e, true
		}
	}
	for number := range at {
		settle(number, have[uint32(number)])
	}
	for number := range at {
		settle(number, r.at(uint16(number)))
	}
	free := 0
	for place, number := range r.order {
		if settled[place] {
			continue
		}
		for at[free].IsValid() {
			free++
		}
		at[free] = r.at(number)
	}
	r.pages = newRoster(at).pages
	slices.SortFunc(r.order, func(a, b uint16) int { return at[a].Compare(at[b]) })
}

// pair goes through two sorted lists at once: it calls yield for what is in both, and
// with nil for what is in one of them only.
func pair[T any](before, after []T, compare func(a, b *T) int, yield func(before, after *T)) {
	for len(before) > 0 || len(after) > 0 {
		var b, a *T
		c := 0
		if len(before) > 0 {
			b = &before[0]
		}
		if len(after) > 0 {
			a = &after[0]
		}
		if a != nil && b != nil {
			c = compare(b, a)
		}
		if c > 0 {
			b = nil
		} else if b != nil {
			before = before[1:]
		}
		if c < 0 {
			a = nil
		} else if a != nil {
			after = after[1:]
		}
		yield(b, a)
	}
}
