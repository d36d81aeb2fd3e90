// Package announce has one node of a segment answer for an address that no interface
// has: it answers ARP and NDP for it, and says so when it takes the address over.
//
// Every node that can has a Lease, and which of them answers for an address follows from
// the Leases that are alive, in the same way on each of them: nobody is asked. A node
// answers only while its own Lease is valid, which is measured at each answer, and takes
// over what was another's only when that one's Lease has run out: see [lease.Holder].
package announce

import (
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/lease"
)

// Purpose is that of the Leases of nodes that answer.
const Purpose = "announcer"

// LeaseName is the name of a node's Lease.
func LeaseName(node string) string { return "flatnet-announcer-" + node }

const (
	// Duration is how long a node answers that cannot renew its Lease, and so the longest
	// time that it takes until others answer for one that has died, but for the way of
	// two requests.
	Duration = 8 * time.Second
	// Interval is how often a Lease is renewed.
	Interval = 2 * time.Second
)

// Annotations of the Lease.
const (
	annotationNode       = "flatnet.io/node"
	annotationInterfaces = "flatnet.io/interfaces" // at which it answers, separated by commas
	annotationLeaving    = "flatnet.io/leaving"    // why it is to answer only where nobody else can
)

// Member is a node that can answer.
type Member struct {
	Node       string    `json:"node"`
	Interfaces []string  `json:"interfaces"`
	Leaving    string    `json:"leaving,omitempty"`
	Renewed    time.Time `json:"renewed"` // when this node saw it renew its Lease
}

// Says is what a node's Lease says.
func (m Member) Says() map[string]string {
	says := map[string]string{annotationNode: m.Node, annotationInterfaces: strings.Join(m.Interfaces, ",")}
	if m.Leaving != "" {
		says[annotationLeaving] = m.Leaving
	}
	return says
}

// memberOf reads a Lease.
func memberOf(s lease.Seen) Member {
	m := Member{Node: s.Annotations[annotationNode], Leaving: s.Annotations[annotationLeaving], Renewed: s.At}
	if text := s.Annotations[annotationInterfaces]; text != "" {
		m.Interfaces = strings.Split(text, ",")
	}
	return m
}

// living returns the nodes whose Leases are not known to have run out, by name: from is when
// the own renewal began that the watch has brought last. Silent says that there is one
// that has not been heard of for long, which a renewal of the own Lease would settle.
func living(all []lease.Seen, from, now time.Time) (members []Member, silent bool, next time.Time) {
	for _, s := range all {
		end := s.At.Add(Duration)
		gone := !from.Before(end)
		if from.IsZero() {
			gone = !now.Before(end) // who has no Lease only looks on
		}
		if s.Holder == "" || gone {
			continue
		}
		switch {
		case !now.Before(end):
			silent = true
		case next.IsZero() || end.Before(next):
			next = end
		}
		if m := memberOf(s); m.Node != "" {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	return members, silent, next
}
