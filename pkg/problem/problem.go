// Package problem is how flatnet says what is wrong on a node: what it is about,
// why, and what to do. Every problem has a kind, of which docs/operations.md has a
// list, and every kind has an advice: there is no problem without one.
//
// One mistake shows in many places: without the tunnel no route can lead
// through it. So a problem says what it breaks and what it needs, and [Fold] puts
// what follows from another problem below its cause.
package problem

import (
	"cmp"
	"fmt"
	"strings"
)

// Problem is something that keeps a part of the network from working. It is made
// by [Kind.Of].
type Problem struct {
	kind    Kind
	facts   Facts
	follows []Problem
}

// Facts are what is to be said of one problem.
type Facts struct {
	Node   string // whom it concerns; "" where it is no single node
	Object string // what it is about, with its value: a podCIDR, an interface, a command
	Reason string // why
	// Advice is what to do about this very object; "" where the kind's own says all.
	Advice string
	Breaks []Thing // what does not work because of it
	Needs  []Thing // what would have to work for it not to be
}

// Thing is something that some problems break and others need.
type Thing string

// Things that several parts of flatnet know.
const (
	Overlay     Thing = "overlay"            // this node's end of it
	OwnPodCIDRs Thing = "podCIDRs of a node" // of the node itself
	API         Thing = "API server"         // what is watched there
	Installing  Thing = "installing"         // of the plugin
	Sysctls     Thing = "sysctls"            // writing them
)

// Link is an interface.
func Link(name string) Thing { return Thing("interface " + name) }

// IPv6On is IPv6 on an interface.
func IPv6On(link string) Thing { return Thing("IPv6 on interface " + link) }

// Port is a TCP port at which both kube-proxy and flatnetd would answer.
func Port(number string) Thing { return Thing("port " + number) }

// Address is an address of the node's.
func Address(address fmt.Stringer) Thing { return Thing("address " + address.String()) }

// Of returns a problem of the kind.
func (k Kind) Of(f Facts) Problem { return Problem{kind: k, facts: f} }

// Kind returns what sort of problem it is.
func (p Problem) Kind() Kind { return p.kind }

// Node returns the node that it concerns, or "".
func (p Problem) Node() string { return p.facts.Node }

// Object returns what it is about, or "".
func (p Problem) Object() string { return p.facts.Object }

// Reason returns what is wrong.
func (p Problem) Reason() string { return p.facts.Reason }

// Advice returns what to do. It is never empty.
func (p Problem) Advice() string { return cmp.Or(p.facts.Advice, p.kind.Advice()) }

// Follows returns what [Fold] found to follow from it, none of which has any more
// below it.
func (p Problem) Follows() []Problem { return p.follows }

// Key is the same for a problem as long as it lasts, whatever its reason is by now.
func (p Problem) Key() string { return p.kind.String() + " " + p.facts.Node + " " + p.facts.Object }

// String is the sentence: whom it concerns, what it is about, what is wrong.
func (p Problem) String() string { return Sentence(p.facts.Node, p.facts.Object, p.facts.Reason) }

// Sentence puts together what a problem says, with what is empty left out.
func Sentence(node, object, reason string) string {
	text := reason
	if object != "" {
		text = object + ": " + text
	}
	if node != "" {
		text = "node " + node + ": " + text
	}
	return text
}

// mostNamed is how many consequences a line for people names.
const mostNamed = 3

// Consequence names what follows from a problem, in a line that says why: whom it
// concerns, and what it is about.
func Consequence(node, object, reason string) string {
	if object != "" {
		reason = ""
	}
	return strings.TrimSuffix(Sentence(node, object, reason), ": ")
}

// Consequences is one line about what follows from a problem: how many, and the
// first of them by name; "" for none.
func Consequences(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "and 1 thing that follows from it: " + names[0]
	}
	named := names[:min(mostNamed, len(names))]
	text := fmt.Sprintf("and %d things that follow from it: %s", len(names), strings.Join(named, "; "))
	if more := len(names) - len(named); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}
