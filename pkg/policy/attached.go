package policy

import (
	"maps"
	"net/netip"
	"slices"
)

// Attached is a pod of this node as the plugin has recorded it: it has the addresses
// from before its first packet on, whatever the API server knows of them. One without a
// name is no pod: its addresses are nobody's that policies know of.
type Attached struct {
	Name      Name
	UID       string // "" where the runtime has not told
	Addresses []netip.Addr
}

// is reports whether two are the same pod, and not one after the other under one name.
func (a Attached) is(b Attached) bool {
	return a.UID == b.UID && (a.UID != "" || a.Name == b.Name)
}

// isOf reports whether what is attached under a pod's name is that pod, as far as its UID
// is known.
func (a Attached) isOf(p *Pod) bool { return a.UID == "" || p.UID == "" || a.UID == p.UID }

// attach takes which pods are attached to this node: all of them.
func (w *world) attach(all []Attached) {
	now, foreign := make(map[Name]Attached, len(all)), map[netip.Addr]struct{}{}
	for _, a := range all {
		if a.Name != (Name{}) {
			now[a.Name] = a
			continue
		}
		for _, address := range a.Addresses {
			foreign[address] = struct{}{}
		}
	}
	if !maps.Equal(w.foreign, foreign) {
		for _, set := range []map[netip.Addr]struct{}{w.foreign, foreign} {
			maps.Copy(w.dirty, set)
		}
		w.foreign = foreign
	}
	same := func(a, b Attached) bool { return a.UID == b.UID && slices.Equal(a.Addresses, b.Addresses) }
	if maps.EqualFunc(w.attached, now, same) {
		w.settle()
		return
	}
	for _, set := range []map[Name]Attached{w.attached, now} {
		for _, a := range set {
			for _, address := range a.Addresses {
				w.dirty[address] = struct{}{}
			}
		}
	}
	w.part(now)
	w.attached, w.holder, w.stirred = now, map[netip.Addr]Name{}, true
	maps.DeleteFunc(w.ended, func(name Name, _ *Pod) bool { _, here := now[name]; return !here })
	for name, a := range now {
		for _, address := range a.Addresses {
			w.holder[address] = name
		}
	}
	w.settle()
}

// part notes which of the API server's pods are attached no longer, and which are again.
// Those of gone are all among its pods.
func (w *world) part(now map[Name]Attached) {
	for name, was := range w.attached {
		p := w.pods[name]
		if at, here := now[name]; p != nil && was.isOf(p) && !(here && at.isOf(p)) {
			w.gone[name] = p.UID
			w.touch(p)
		}
	}
	for name, at := range now {
		if _, gone := w.gone[name]; gone && at.isOf(w.pods[name]) {
			delete(w.gone, name)
			w.touch(w.pods[name])
		}
	}
}

// holds reports whether an address is, as far as is known here, one of what is attached.
func (w *world) holds(attached Attached, a netip.Addr) bool {
	if attached.Name == (Name{}) {
		_, is := w.foreign[a]
		return is
	}
	holder, known := w.holder[a]
	return known && attached.is(w.attached[holder])
}
