package page

import (
	"encoding/json"
	"slices"
)

// States of the way from one node to another, a letter each, the worst first.
const (
	lost     = 'x' // nothing is answered
	missing  = 'm' // the route is not in the kernel
	noWay    = 'n' // there is none by the configuration
	fullSize = 'f' // full packets are lost
	lossy    = 'y' // some packets are lost
	waiting  = 'w' // for a podCIDR
	silent   = 's' // the peer answers no probes, and is there
	unprobed = 'u' // the route is there, and nobody has tried
	well     = 'o'
	nobody   = '-' // itself, or a node that this one does not know
)

// peerRow is how a node is joined to all others: what belongs to one peer is at the peer's
// number in the names.
type peerRow struct {
	States string  `json:"states"` // a letter each
	Modes  string  `json:"modes"`  // d, v, m for mixed, - for none
	Trips  []int32 `json:"trips"`  // in microseconds; 0: not known
	// Losses are of those of which something was lost, and of those that are not well.
	Losses map[int]loss `json:"losses,omitempty"`
	// Ways are not there where many nodes with many peers are asked.
	Ways []peerWays `json:"ways,omitempty"`
}

// loss is how much of what was sent was not answered.
type loss struct {
	Sent  int    `json:"sent"`
	Lost  int    `json:"lost"`
	Since string `json:"since,omitempty"`
}

// peerWays are how the pods of a peer are reached.
type peerWays struct {
	Peer int   `json:"peer"`
	Ways []way `json:"ways"`
}

type way struct {
	PodCIDR string  `json:"podCIDR"`
	Mode    string  `json:"mode"`
	Via     string  `json:"via,omitempty"`
	Link    string  `json:"link,omitempty"`
	Present bool    `json:"present"`
	Health  *health `json:"health,omitempty"`
}

// health is what an agent says of how its probes fare.
type health struct {
	State                 string `json:"state"`
	Sent                  int    `json:"sent"`
	Lost                  int    `json:"lost"`
	RoundTripMicroseconds int32  `json:"roundTripMicroseconds"`
	Since                 string `json:"since,omitempty"`
	FullSize              string `json:"fullSize,omitempty"`
}

// saidOfPeer is what is read of one entry of the status's peers.
type saidOfPeer struct {
	Name   string `json:"name"`
	Mode   string `json:"mode"`
	Ways   []way  `json:"ways"`
	Health health `json:"health"` // the worst of its ways
}

// mostWays is how many peers may have their ways in the rows of all nodes.
const mostWays = 64

func condensePeers(raw []byte, n *names, single bool) (any, error) {
	var said struct {
		Peers []saidOfPeer `json:"peers"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return nil, err
	}
	var r peerRow
	at := make([]int, len(said.Peers))
	most := 0
	for i, p := range said.Peers {
		at[i] = n.add(p.Name)
		most = max(most, at[i]+1)
	}
	states, modes, trips := slices.Repeat([]byte{nobody}, most), slices.Repeat([]byte{'-'}, most), make([]int32, most)
	for i, p := range said.Peers {
		h := p.Health
		states[at[i]], modes[at[i]], trips[at[i]] = p.letter(), letterOf(p.Mode), h.RoundTripMicroseconds
		if h.Lost > 0 || h.State != "" && h.State != "ok" {
			if r.Losses == nil {
				r.Losses = map[int]loss{}
			}
			r.Losses[at[i]] = loss{h.Sent, h.Lost, h.Since}
		}
		if single || len(said.Peers) <= mostWays {
			r.Ways = append(r.Ways, peerWays{at[i], p.Ways})
		}
	}
	r.States, r.Modes, r.Trips = string(states), string(modes), trips
	return r, nil
}

// letter is the worst that is known of the way.
func (p saidOfPeer) letter() byte {
	switch {
	case p.Mode == "none":
		return noWay
	case p.Mode == "waiting":
		return waiting
	}
	for _, w := range p.Ways {
		if w.Mode != "" && !w.Present {
			return missing
		}
	}
	return p.Health.letter()
}

func (h health) letter() byte {
	switch {
	case h.State == "lost":
		return lost
	case h.FullSize == "lost":
		return fullSize
	case h.State == "lossy":
		return lossy
	case h.State == "silent":
		return silent
	case h.State == "ok":
		return well
	}
	return unprobed
}

func letterOf(mode string) byte {
	switch mode {
	case "direct", "bgp", "vxlan", "mixed":
		return mode[0]
	}
	return '-'
}
