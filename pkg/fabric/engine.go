package fabric

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Kernel is what an engine works on: [kernel.Fabric].
type Kernel interface {
	// List returns what of the fabric is there.
	List() ([]kernel.Object, error)
	// Apply does the changes in their order, with an error for each.
	Apply([]kernel.Change) []error
}

// Engine makes the kernel's state that of a plan, and knows what it is in
// between. It is not safe for concurrent use.
type Engine struct {
	kernel Kernel
	plan   *Plan // whose entries are wanted
	want   map[string]wanted
	// other is what the kernel holds besides the wanted entries that are there:
	// in their place, or where nothing is wanted.
	other map[string]Entry
	// known says that the engine knows what the kernel holds, as it has seen or
	// made all of it.
	known  bool
	failed map[string]Failure
}

// wanted is an entry of the plan. All that is there is as a rule what is wanted: a
// second map of the same would take megabytes.
type wanted struct {
	Entry
	there bool // in the kernel, if that is known
}

// Failure is an entry that the kernel refused.
type Failure struct {
	Change kernel.Change
	Err    error
}

// NewEngine returns an engine that knows nothing of the kernel's state yet.
func NewEngine(k Kernel) *Engine {
	return &Engine{kernel: k, plan: &Plan{}, want: map[string]wanted{}, failed: map[string]Failure{}}
}

// Result says what a sync has done.
type Result struct {
	Changes []kernel.Change // those that were done
	Failed  int             // how many others were refused; see [Engine.Failures]
}

// Sync makes a plan what is in the kernel. It trusts what it knows of the
// kernel, and looks at what differs from the plan before alone; the first time,
// and after a surprise, it looks at everything ([Engine.Verify]). An entry that
// the kernel refuses does not keep the others from being made.
func (e *Engine) Sync(plan *Plan) (Result, error) {
	before, after := difference(e.plan, plan)
	e.plan = plan
	have := make(map[string]Entry, len(before))
	for _, places := range []map[string]Entry{before, after} {
		for place := range places {
			if h, there := e.held(place); there {
				have[place] = h
			}
		}
	}
	for place := range before {
		delete(e.want, place)
		delete(e.failed, place)
	}
	for place, w := range after {
		e.want[place] = wanted{Entry: w}
	}
	if !e.known {
		return e.Verify()
	}
	for _, h := range have {
		e.hold(h)
	}
	result, err := e.apply(Diff(have, after))
	if err != nil || e.known {
		return result, err
	}
	more, err := e.Verify()
	return Result{Changes: append(result.Changes, more.Changes...), Failed: more.Failed}, err
}

// held returns what the kernel holds in a place.
func (e *Engine) held(place string) (Entry, bool) {
	if w := e.want[place]; w.there {
		return w.Entry, true
	}
	h, there := e.other[place]
	return h, there
}

// hold notes that the kernel holds an entry.
func (e *Engine) hold(h Entry) {
	if w, is := e.want[h.Place]; is && w.Object == h.Object {
		w.there = true
		e.want[h.Place] = w
		delete(e.other, h.Place)
		return
	}
	e.other[h.Place] = h
}

// difference returns the entries of two plans without those that both have
// because they have the same peers.
func difference(a, b *Plan) (before, after map[string]Entry) {
	gone, come := &Plan{Shared: a.Shared}, &Plan{Shared: b.Shared}
	i, j := 0, 0
	for i < len(a.Peers) || j < len(b.Peers) {
		switch {
		case j == len(b.Peers) || i < len(a.Peers) && a.Peers[i].Name < b.Peers[j].Name:
			gone.Peers = append(gone.Peers, a.Peers[i])
			i++
		case i == len(a.Peers) || b.Peers[j].Name < a.Peers[i].Name:
			come.Peers = append(come.Peers, b.Peers[j])
			j++
		default:
			if a.Peers[i] != b.Peers[j] {
				gone.Peers = append(gone.Peers, a.Peers[i])
				come.Peers = append(come.Peers, b.Peers[j])
			}
			i++
			j++
		}
	}
	return gone.Entries(), come.Entries()
}

// rounds bounds how often the engine looks again after a change that takes
// others along.
const rounds = 3

// Verify reads the kernel's state and mends what differs from what was last
// asked for. Its result therefore lists repairs, where there was a sync before.
func (e *Engine) Verify() (Result, error) {
	var all Result
	for range rounds {
		e.known = false
		if err := e.list(); err != nil {
			return all, err
		}
		e.known = true
		clear(e.failed)
		result, err := e.apply(e.differences())
		all.Changes = append(all.Changes, result.Changes...)
		all.Failed = result.Failed
		if err != nil || e.known {
			return all, err
		}
	}
	return all, fmt.Errorf("the kernel's state differs from the plan after %d rounds", rounds)
}

// apply does changes. It forgets the kernel's state where one may have taken
// other objects along.
func (e *Engine) apply(changes []kernel.Change) (Result, error) {
	if len(changes) == 0 {
		return Result{Failed: len(e.failed)}, nil
	}
	var result Result
	forget := false
	for i, err := range e.kernel.Apply(changes) {
		c := changes[i]
		place := kernel.Place(c.Object)
		delete(e.failed, place)
		if err != nil {
			e.failed[place] = Failure{Change: c, Err: err}
			continue
		}
		result.Changes = append(result.Changes, c)
		switch c.Object.(type) {
		case kernel.Tunnel:
			// It may have been made anew; and what failed because it was not there
			// can be made now.
			forget = forget || c.Verb == kernel.Put || c.Verb == kernel.Add && len(e.failed) > 0
		case kernel.Address:
			// With the last IPv4 address of an interface the kernel removes
			// its IPv4 routes and neighbours, whether they need it or not.
			forget = forget || c.Verb == kernel.Delete
		}
		w, wanted := e.want[place]
		if wanted && c.Verb != kernel.Delete {
			w.there = true
			e.want[place] = w
		}
		if !wanted || w.there {
			delete(e.other, place)
		}
	}
	if forget {
		e.known = false
	}
	result.Failed = len(e.failed)
	return result, nil
}

// list notes what the kernel holds.
func (e *Engine) list() error {
	objects, err := e.kernel.List()
	if err != nil {
		return fmt.Errorf("reading the fabric's state: %w", err)
	}
	for place, w := range e.want {
		if w.there {
			w.there = false
			e.want[place] = w
		}
	}
	e.other = map[string]Entry{}
	for _, o := range objects {
		e.hold(entry(o))
	}
	return nil
}

// differences returns what makes the kernel hold what is wanted.
func (e *Engine) differences() []kernel.Change {
	missing := func(yield func(string, Entry) bool) {
		for place, w := range e.want {
			if !w.there && !yield(place, w.Entry) {
				return
			}
		}
	}
	return diff(e.other, missing, func(place string) bool { _, is := e.want[place]; return is })
}

// Observe takes note of an event and reports whether the kernel's state is no
// longer what was asked for: then it is time for [Engine.Verify]. What the
// engine does itself is as asked for.
func (e *Engine) Observe(event kernel.Event) bool {
	if event.Object == nil {
		return event.Underlay || event.Lost
	}
	x := entry(event.Object)
	w, wanted := e.want[x.Place]
	if n, is := event.Object.(kernel.Neighbour); is && n.MAC == (kernel.MAC{}) {
		return wanted // one that the kernel itself made is of no interest
	}
	if event.Gone {
		return wanted && w.Object == x.Object
	}
	return !wanted || w.Object != x.Object
}

// Failures returns what the kernel refused at the last sync, each after what it
// relies on.
func (e *Engine) Failures() []Failure {
	all := make([]Failure, 0, len(e.failed))
	for _, f := range e.failed {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(rank(a.Change.Object), rank(b.Change.Object)), strings.Compare(kernel.Place(a.Change.Object), kernel.Place(b.Change.Object)))
	})
	return all
}

// Present returns how many of the entries that are asked for are there, of how
// many.
func (e *Engine) Present() (present, desired int) {
	return e.count(func(kernel.Object) bool { return true })
}

// count is Present for the objects that are meant.
func (e *Engine) count(meant func(kernel.Object) bool) (present, desired int) {
	for _, w := range e.want {
		if !meant(w.Object) {
			continue
		}
		desired++
		if e.known && w.there {
			present++
		}
	}
	return present, desired
}

// PresentRoutes is [Engine.Present] for routes in the main table alone.
func (e *Engine) PresentRoutes() (present, desired int) {
	return e.count(func(o kernel.Object) bool {
		r, isRoute := o.(kernel.Route)
		return isRoute && r.Table == 0 && !r.Unreachable
	})
}

// HasRoute reports whether the route to a podCIDR that is asked for is there.
func (e *Engine) HasRoute(podCIDR netip.Prefix) bool {
	place := kernel.Place(kernel.Route{Destination: podCIDR})
	return e.known && e.want[place].there
}

// Has reports whether an object that is asked for is in the kernel, by the last that is
// known.
func (e *Engine) Has(o kernel.Object) bool {
	w, wanted := e.want[kernel.Place(o)]
	return wanted && w.Object == o && w.there
}
