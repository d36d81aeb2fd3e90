package kernel

import (
	"fmt"
	"slices"
)

// Recorder stands in for the kernel: it keeps the objects that were made, knows
// what depends on what, and shows everything as `ip` commands. It is for tests;
// it refuses what the kernel refuses for being there already or for lacking
// its interface, and nothing else.
type Recorder struct {
	// Before is called ahead of every change with its command; an error is
	// returned to the caller in place of the change. nil changes nothing.
	Before func(command string) error
	made   []recorded
}

type recorded struct {
	object Object
	text   string
}

// Text returns the commands that make what there is, in their order.
func (r *Recorder) Text() []string {
	var text []string
	for _, m := range r.made {
		text = append(text, m.text)
	}
	return text
}

// Without returns a recorder in which the n-th object is missing.
func (r *Recorder) Without(n int) *Recorder {
	return &Recorder{made: slices.Delete(slices.Clone(r.made), n, n+1)}
}

// Make implements what [Netlink.Make] does.
func (r *Recorder) Make(object Object) error {
	text := object.String()
	if err := r.before(text); err != nil {
		return err
	}
	if side, link := object.Dependence(); link != "" && !r.hasLink(side, link) {
		return fmt.Errorf("%s: no such device", text)
	}
	if r.has(text) {
		switch object.(type) {
		case Forwarding, Answered, Shaper, Clsact:
			return nil
		}
		return fmt.Errorf("%s: %w", text, ErrExists)
	}
	r.made = append(r.made, recorded{object, text})
	return nil
}

// Remove implements what [Netlink.Remove] does.
func (r *Recorder) Remove(object Object) error {
	text := object.String()
	if err := r.before("undo: " + text); err != nil {
		return err
	}
	switch o := object.(type) {
	case Forwarding, Answered, Settings, Shaper, Up, Running, Reachable, Patience:
	case Pair:
		r.made = slices.DeleteFunc(r.made, func(m recorded) bool {
			if p, isPair := m.object.(Pair); isPair {
				return p.Host.Name == o.Host.Name
			}
			side, link := m.object.Dependence()
			return side == Host && link == o.Host.Name || side == Pod && link == o.Pod.Name
		})
	default:
		r.made = slices.DeleteFunc(r.made, func(m recorded) bool { return m.text == text })
	}
	return nil
}

// Inspect implements what [Netlink.Inspect] does.
func (r *Recorder) Inspect(object Object) error {
	if r.has(object.String()) {
		return nil
	}
	return &Difference{Object: object, Found: "missing"}
}

func (r *Recorder) before(command string) error {
	if r.Before == nil {
		return nil
	}
	return r.Before(command)
}

func (r *Recorder) has(text string) bool {
	return slices.ContainsFunc(r.made, func(m recorded) bool { return m.text == text })
}

func (r *Recorder) hasLink(side Side, name string) bool {
	return slices.ContainsFunc(r.made, func(m recorded) bool {
		p, isPair := m.object.(Pair)
		return isPair && (side == Host && p.Host.Name == name || side == Pod && p.Pod.Name == name)
	})
}
