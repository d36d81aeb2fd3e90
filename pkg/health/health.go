// Package health tells whether packets get through to other nodes: not what is
// configured, but what comes back.
//
// A [Prober] sends ICMP echo requests from an address of this node's podCIDR to the
// gateway of the peer's, which the peer's kernel answers (see package fabric). So a
// probe takes the way that pods' packets take: the same route and tunnel, through the
// same firewalls, with addresses of the same networks. Every second probe is followed
// by one as large as pods' packets are, which may not be fragmented.
//
// What it costs is bounded, whatever the number of peers: a number of packets a
// second, of which most go to a sample. That is the peers whose hash comes next after
// the node's own, so that each node is watched by as many others as it watches. All
// others are asked in turn, and any that does not answer is asked again at once.
//
// It has one socket for each address family and one goroutine, which wakes up some
// times a second: the kernel notes when an answer came, so nobody has to wait for it.
package health

import (
	"net/netip"
	"time"
)

// State is how the way to a peer is.
type State string

// The states, the worst last.
const (
	Unknown State = "unknown" // not asked yet
	OK      State = "ok"
	Silent  State = "silent" // the peer itself says that it does not know the address: it is reached, and has a flatnet without an answer
	Lossy   State = "lossy"  // some probes are lost, again and again
	Lost    State = "lost"   // the last probes are lost, all of them
)

// States are all of them.
var States = []State{Unknown, OK, Silent, Lossy, Lost}

// Worse reports whether s is worse than another state.
func (s State) Worse(than State) bool { return s.rank() > than.rank() }

func (s State) rank() int {
	for i, other := range States {
		if s == other {
			return i
		}
	}
	return 0
}

// What [Report.FullSize] says.
const (
	FullOK   = "ok"
	FullLost = "lost"
)

const (
	// window is how many of the last probes of a way are looked at.
	window = 20
	// interval is between two probes of a way that is watched.
	interval = 3 * time.Second
	// Timeout is how long an answer may take. What comes later is no use to pods.
	Timeout = time.Second
	// lostInARow make a way lost. The first may be an interval away and each takes a
	// timeout, so that is told within nine seconds; a shorter interruption is none.
	lostInARow = 5
	// fullEvery is how many probes of the usual size come before one of full size.
	fullEvery = 2
	// lossyLosses in as many probes as a window has, and not in one piece, make a way
	// lossy; it is no longer when there are lossyEnd.
	lossyLosses, lossyEnd = 3, 1
)

// Target is what is probed: the node that has a podCIDR.
type Target struct {
	Peer string
	// Address is where the peer answers.
	Address netip.Addr
	// Way names how the peer is reached. Another way begins anew.
	Way string
	// Link is the interface that it is reached by.
	Link string
	// Sort names what it has in common with others.
	Sort string
	// Own are the networks that the peer has addresses in: an error from there is
	// the peer's own word.
	Own []netip.Prefix
	// Size is the length in bytes of an IP packet of full size.
	Size int
}

// Finding is a target to which packets are lost, all or some.
type Finding struct {
	Target
	Report
}

// Report is what is known of a target.
type Report struct {
	State State
	// Since is when the state began.
	Since time.Time
	// Sent and Lost count the last probes, [window] at most.
	Sent, Lost int
	// RoundTrip is the median of the last answers' times; 0 where there are none.
	RoundTrip time.Duration
	// FullSize says whether packets of full size get through; "" where that is not known.
	FullSize string
	// Complaint is what somebody on the way, or this node's kernel, said last of a
	// probe that was lost; "" for nothing.
	Complaint string
	// Watched says that the target is in the sample.
	Watched bool
	// Answered says that it has ever answered.
	Answered bool
	// Known is when the target came.
	Known time.Time
}
