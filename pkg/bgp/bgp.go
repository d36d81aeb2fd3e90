// Package bgp is what a node tells routers, and what it believes of what they tell.
//
// What is told is a pure function of the node, the Services and the configuration
// ([Announcements]); what is believed is one of the peers' paths and the configuration
// ([Table.Learned]). Neither speaks to anybody. The protocol is spoken by a program of its
// own, flatnet-bgp (package speaker), a child of flatnetd that is told what is wanted as one
// [Desired] and answers with [Event]s: so that those who have no use for BGP do not carry
// its 14 MB. When flatnetd ends, so does flatnet-bgp, and without a word to the peers: they
// keep the routes until it is back (graceful restart, RFC 4724), and so does the kernel.
package bgp

import "github.com/flatnet-cni/flatnet/pkg/bgp/message"

// What is said to flatnet-bgp, and by it.
type (
	Desired      = message.Desired
	Global       = message.Global
	Neighbour    = message.Neighbour
	Announcement = message.Announcement
	Path         = message.Path
	Family       = message.Family
	Community    = message.Community
)

// The families, as they are written.
const (
	IPv4 = message.IPv4
	IPv6 = message.IPv6
)

// Kinds of Services' addresses.
const (
	LoadBalancer = "loadBalancer"
	External     = "external"
	Cluster      = "cluster"
)
