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
	Objects []Object
	// Before is called ahead of every change with its command; an error is
	// returned to the caller in place of the change. nil changes nothing.
	Before func(command string) error
}

// Text returns the commands that make what there is, in their order.
func (r *Recorder) Text() []string {
	var text []string
	for _, o := range r.Objects {
		text = append(text, o.String())
	}
	return text
}

// Make implements what [Netlink.Make] does.
func (r *Recorder) Make(object Object) error {
	if err := r.before(object.String()); err != nil {
		return err
	}
	if side, link := object.Dependence(); link != "" && !r.hasLink(side, link) {
		return fmt.Errorf("%s: no such device", object)
	}
	if slices.ContainsFunc(r.Objects, func(o Object) bool { return o.String() == object.String() }) {
		if _, isSwitch := object.(Forwarding); isSwitch {
			return nil
		}
		return fmt.Errorf("%s: %w", object, ErrExists)
	}
	r.Objects = append(r.Objects, object)
	return nil
}

// Remove implements what [Netlink.Remove] does.
func (r *Recorder) Remove(object Object) error {
	if err := r.before("undo: " + object.String()); err != nil {
		return err
	}
	switch o := object.(type) {
	case Forwarding, Settings, Up:
	case Pair:
		r.Objects = slices.DeleteFunc(r.Objects, func(other Object) bool {
			side, link := other.Dependence()
			if p, isPair := other.(Pair); isPair {
				return p.Host.Name == o.Host.Name
			}
			return side == Host && link == o.Host.Name || side == Pod && link == o.Pod.Name
		})
	default:
		r.Objects = slices.DeleteFunc(r.Objects, func(other Object) bool { return other.String() == object.String() })
	}
	return nil
}

// Inspect implements what [Netlink.Inspect] does.
func (r *Recorder) Inspect(object Object) error {
	for _, o := range r.Objects {
		if o.String() == object.String() {
			return nil
		}
	}
	return &Difference{Object: object, Found: "missing"}
}

func (r *Recorder) before(command string) error {
	if r.Before == nil {
		return nil
	}
	return r.Before(command)
}

func (r *Recorder) hasLink(side Side, name string) bool {
	return slices.ContainsFunc(r.Objects, func(o Object) bool {
		p, isPair := o.(Pair)
		return isPair && (side == Host && p.Host.Name == name || side == Pod && p.Pod.Name == name)
	})
}
