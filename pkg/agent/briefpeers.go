package agent

import (
	"cmp"
	"slices"
)

// mostPeersNamed bounds the names of a group of peers in the brief status.
const mostPeersNamed = 16

// BriefPeers is PeersStatus for who asks all nodes of a cluster: with as many peers as
// nodes, their full answers would be as long as the square of their number.
type BriefPeers struct {
	Objects Objects `json:"objects"`
	// Joined are the peers by mode, the most common first. Of all others, and of those
	// that are not reached, the first are named.
	Joined []PeerGroup `json:"joined"`
	// Missing are the peers of which a route is not in the kernel.
	Missing *PeerGroup `json:"missing,omitempty"`
	// Unwell are the peers to which packets are lost, all or some.
	Unwell *PeerGroup `json:"unwell,omitempty"`
}

// PeerGroup is a number of peers.
type PeerGroup struct {
	Mode  string   `json:"mode,omitempty"` // direct, vxlan, mixed, none, waiting
	Peers int      `json:"peers"`
	Names []string `json:"names,omitempty"` // of some of them
}

func (g *PeerGroup) add(name string) {
	if g.Peers++; len(g.Names) < mostPeersNamed {
		g.Names = append(g.Names, name)
	}
}

// reached reports whether a mode is a way.
func reached(mode string) bool { return mode != "none" && mode != "waiting" }

// brief is the status without a line for each peer.
func (s PeersStatus) brief() BriefPeers {
	b := BriefPeers{Objects: s.Objects, Joined: []PeerGroup{}}
	var missing, unwell PeerGroup
	for _, p := range s.Peers {
		at := slices.IndexFunc(b.Joined, func(g PeerGroup) bool { return g.Mode == p.Mode })
		if at < 0 {
			at = len(b.Joined)
			b.Joined = append(b.Joined, PeerGroup{Mode: p.Mode})
		}
		b.Joined[at].add(p.Name)
		if slices.ContainsFunc(p.Ways, func(w WayStatus) bool { return w.Mode != "" && !w.Present }) {
			missing.add(p.Name)
		}
		if p.Health.unwell() {
			unwell.add(p.Name)
		}
	}
	slices.SortStableFunc(b.Joined, func(a, b PeerGroup) int {
		return cmp.Or(cmp.Compare(b.Peers, a.Peers), cmp.Compare(a.Mode, b.Mode))
	})
	if len(b.Joined) > 0 && reached(b.Joined[0].Mode) {
		b.Joined[0].Names = nil
	}
	if missing.Peers > 0 {
		b.Missing = &missing
	}
	if unwell.Peers > 0 {
		b.Unwell = &unwell
	}
	return b
}
