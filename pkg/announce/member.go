// Package announce has one node of a segment answer for an address that no interface
// has: it answers ARP and NDP for it, and says so when it takes the address over.
//
// Every node that can has a Lease, and which of them answers for an address follows from
// the Leases that are alive, in the same way on each of them: nobody is asked. A node
// answers only while its own Lease is valid, which is measured at each answer, and takes
// over what was another's only when that one's Lease has run out: see [lease.Holder].
//
// # Without the API server
//
// If the API server is gone, all Leases run out, and nobody would answer. A node cannot
// know whether the API server is gone or only it is cut off; but another node could take
// its addresses over only if that one renews its Lease. So a node that has not renewed its
// Lease for half its time says so to all others on the segment, every second, in a word
// with a number (EtherType 0x88b5). Who cannot renew its Lease either gives it leave: it
// names the number in its own next word. Leave is what a renewal is otherwise: who gives
// it counts the other's Lease as renewed when it sends that word; who gets it counts from
// when it began to say the word that is answered, which was earlier. A node with leave of
// all other nodes goes on for a Lease's time after the oldest of these, with what it has.
//
// All others are all that have a Lease, also one that has run out: such a node may come
// back where nobody hears it. So where one node is missing, all stop; and where the
// segment is cut in two, everybody misses somebody. Only who is gone for so long that its
// Lease was deleted does not count.
//
// What could go wrong, and does not:
//
//   - Words are lost, or late. Leave that does not arrive is none; eight in a row have to be
//     lost. One that arrives after the time of the one before is over is not taken: a node
//     that has stopped waits for its Lease.
//   - Clocks differ. None is compared with another one's: numbers are.
//   - The API server is back for one node first. It has promised: it takes nothing over for
//     a Lease's time after it last gave leave, or until the other says that its Lease is
//     valid. The other one's watch may come back a minute later than that node's, but its
//     renewals arrive: for that time it gives leave to whose Lease it sees renewed.
//   - A node takes an address over, and the other has not heard of it when both lose the
//     API server. Nobody gives leave within a Lease's time of taking something over, and
//     before the end of that the other one's Lease has run out.
//   - flatnetd is restarted, and has forgotten whom it gave leave. It counts all Leases from
//     when it lists them, which is later; and a file says until when it takes nothing over.
//     It gives leave to others as before; it has no
//     addresses itself before it reaches the API server, which has its node's unanswered.
//   - A node is new, or was gone until its Lease was deleted. If it is heard, and its Lease
//     is valid, who goes on without stops. If it is not heard, and neither is the API
//     server, by any node that was there before, then it takes over while they go on: this
//     is the one case with two answers that lasts. It takes a cut with all old nodes on one
//     side, and, after it, a new one on the side of the API server.
//
// Words are believed as ARP is: whoever is on the segment can say them, and can take any
// address by ARP without them.
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
