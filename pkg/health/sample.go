package health

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// sample chooses which targets are watched, at most so many: all of the peers whose
// hash comes next after the node's own, as on a ring. Each node is watched by those
// whose hash is before its own: by about as many as it watches. One that comes or goes
// changes one place.
func sample(own string, targets []Target, most int) map[string]bool {
	type peer struct {
		name     string
		distance uint64
		targets  int
	}
	from := ring(own)
	counts := map[string]int{}
	for _, t := range targets {
		counts[t.Peer]++
	}
	peers := make([]peer, 0, len(counts))
	for name, n := range counts {
		peers = append(peers, peer{name, ring(name) - from, n})
	}
	slices.SortFunc(peers, func(a, b peer) int { return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name)) })
	chosen := map[string]bool{}
	for _, p := range peers {
		if most -= p.targets; most < 0 {
			break
		}
		chosen[p.name] = true
	}
	return chosen
}

// ring is a node's place: the sum of FNV, whose last bytes hardly move the first bits,
// is mixed (the last step of MurmurHash3).
func ring(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never fails
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
