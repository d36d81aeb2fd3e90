package fabric

import (
	"errors"
	"fmt"
	"net/netip"

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
	want   map[string]Entry
	// have is what the kernel holds, as far as the engine has seen or made it;
	// nil where it does not know.
	have   map[string]Entry
	failed map[string]Failure
}

// Failure is an entry that the kernel refused.
type Failure struct {
	Change kernel.Change
	Err    error
}

// NewEngine returns an engine that knows nothing of the kernel's state yet.
func NewEngine(k Kernel) *Engine {
	return &Engine{kernel: k, want: map[string]Entry{}, failed: map[string]Failure{}}
}

// Result says what a sync has done.
type Result struct {
	Changes []kernel.Change // those that were done
	Failed  int             // how many others were refused; see [Engine.Failures]
}

// Sync makes the entries what is in the kernel. It trusts what it knows of the
// kernel: the first time, and after a surprise, it looks ([Engine.Verify]). An
// entry that the kernel refuses does not keep the others from being made.
func (e *Engine) Sync(want map[string]Entry) (Result, error) {
	e.want = want
	if e.have == nil {
		return e.Verify()
	}
	result, err := e.apply()
	if err != nil || e.have != nil {
		return result, err
	}
	more, err := e.Verify()
	return Result{Changes: append(result.Changes, more.Changes...), Failed: more.Failed}, err
}

// rounds bounds how often the engine looks again after a change that takes
// others along.
const rounds = 3

// Verify reads the kernel's state and mends what differs from what was last
// asked for. Its result therefore lists repairs, where there was a sync before.
func (e *Engine) Verify() (Result, error) {
	var all Result
	for range rounds {
		have, err := e.list()
		if err != nil {
			e.have = nil
			return all, err
		}
		e.have = have
		result, err := e.apply()
		all.Changes = append(all.Changes, result.Changes...)
		all.Failed = result.Failed
		if err != nil || e.have != nil {
			return all, err
		}
	}
	return all, fmt.Errorf("the kernel's state differs from the plan after %d rounds", rounds)
}

// errConflict says that somebody else's object is in the place of one of ours.
var errConflict = errors.New("somebody else's is there already")

// apply does what is left to do. It forgets the state where a change may have
// taken other objects along.
func (e *Engine) apply() (Result, error) {
	clear(e.failed)
	changes := Diff(e.have, e.want)
	if len(changes) == 0 {
		return Result{}, nil
	}
	var result Result
	forget := false
	for i, err := range e.kernel.Apply(changes) {
		c := changes[i]
		place := kernel.Place(c.Object)
		if err != nil {
			if errors.Is(err, kernel.ErrExists) {
				err = fmt.Errorf("%w: %w", errConflict, err)
			}
			e.failed[place] = Failure{Change: c, Err: err}
			result.Failed++
			continue
		}
		result.Changes = append(result.Changes, c)
		switch c.Object.(type) {
		case kernel.Tunnel:
			// It may have been made anew.
			forget = forget || c.Verb == kernel.Put
		case kernel.Address:
			// With the last IPv4 address of an interface the kernel removes
			// its IPv4 routes and neighbours, whether they need it or not.
			forget = forget || c.Verb == kernel.Delete
		}
		if w, wanted := e.want[place]; c.Verb != kernel.Delete {
			e.have[place] = w
		} else if !wanted {
			delete(e.have, place)
		}
	}
	if forget {
		e.have = nil
	}
	return result, nil
}

func (e *Engine) list() (map[string]Entry, error) {
	objects, err := e.kernel.List()
	if err != nil {
		return nil, fmt.Errorf("reading the fabric's state: %w", err)
	}
	have := make(map[string]Entry, len(objects))
	for _, o := range objects {
		x := entry(o)
		have[x.Place] = x
	}
	return have, nil
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
	if event.Gone {
		return wanted && w.Text == x.Text
	}
	return !wanted || w.Text != x.Text
}

// Failures returns what the kernel refused at the last sync.
func (e *Engine) Failures() []Failure {
	all := make([]Failure, 0, len(e.failed))
	for _, f := range e.failed {
		all = append(all, f)
	}
	return all
}

// Present returns how many of the entries that are asked for are there, of how
// many.
func (e *Engine) Present() (present, desired int) {
	for place, w := range e.want {
		if h, there := e.have[place]; there && h.Text == w.Text {
			present++
		}
	}
	return present, len(e.want)
}

// PresentRoutes is [Engine.Present] for routes in the main table alone.
func (e *Engine) PresentRoutes() (present, desired int) {
	for place, w := range e.want {
		if r, isRoute := w.Object.(kernel.NodeRoute); !isRoute || r.Table != 0 || r.Unreachable {
			continue
		}
		desired++
		if h, there := e.have[place]; there && h.Text == w.Text {
			present++
		}
	}
	return present, desired
}

// IsConflict reports whether a failure's error says that somebody else's object
// is in the place of one of ours.
func IsConflict(err error) bool { return errors.Is(err, errConflict) }

// HasRoute reports whether the route to a podCIDR that is asked for is there.
func (e *Engine) HasRoute(podCIDR netip.Prefix) bool {
	place := kernel.Place(kernel.NodeRoute{Destination: podCIDR})
	h, there := e.have[place]
	return there && h.Text == e.want[place].Text
}
