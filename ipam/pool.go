package ipam

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// RangeSet is a list of ranges of one family that serve as one. Addresses are
// handed out range by range, and after the last range comes the first.
type RangeSet []Range

// Pool is what one request is served from: one address out of each set.
type Pool []RangeSet

// ParsePool reads a list of range sets, in the form of the key "ranges" of
// host-local's configuration: a list of lists of ranges. name is what errors
// call the list. What it returns is not validated across ranges yet; see
// Pool.Validate. It fails with a *RangeError.
func ParsePool(name string, data []byte) (Pool, error) {
	var sets []json.RawMessage
	if err := json.Unmarshal(data, &sets); err != nil {
		return nil, &RangeError{Range: name, Value: abbreviate(data), Rule: "is not a list of range sets"}
	}
	var pool Pool
	for i, text := range sets {
		var ranges []json.RawMessage
		if err := json.Unmarshal(text, &ranges); err != nil {
			return nil, &RangeError{Range: fmt.Sprintf("%s[%d]", name, i), Value: abbreviate(text), Rule: "is not a list of ranges"}
		}
		set := make(RangeSet, len(ranges))
		for j, text := range ranges {
			if err := set[j].UnmarshalJSON(text); err != nil {
				return nil, placed(err, fmt.Sprintf("%s[%d][%d]", name, i, j))
			}
		}
		pool = append(pool, set)
	}
	return pool, nil
}

// UnmarshalJSON is ParsePool with the name "ranges".
func (p *Pool) UnmarshalJSON(data []byte) error {
	pool, err := ParsePool("ranges", data)
	if err != nil {
		return err
	}
	*p = pool
	return nil
}

// Validate checks that there is a set at all, that no set is empty, that the
// ranges of a set are of one family, and that no two ranges overlap, within a
// set or between sets. It fails with a *RangeError.
func (p Pool) Validate() error {
	if len(p) == 0 {
		return &RangeError{Rule: "no range set is given"}
	}
	type place struct {
		set, index int
		r          *Range
	}
	var all []place
	for i, set := range p {
		if len(set) == 0 {
			return &RangeError{Range: fmt.Sprintf("ranges[%d]", i), Rule: "the range set is empty"}
		}
		for j := range set {
			r := &set[j]
			if err := r.validate(); err != nil {
				return placed(err, fmt.Sprintf("ranges[%d][%d]", i, j))
			}
			if r.First.BitLen() != set[0].First.BitLen() {
				return &RangeError{Range: fmt.Sprintf("ranges[%d][%d]", i, j), Field: "subnet", Value: r.Subnet.String(),
					Rule: "is of another address family than the first range of its set"}
			}
			all = append(all, place{i, j, r})
		}
	}
	// Sorted by their first address, ranges that overlap have a neighbour
	// that they overlap.
	slices.SortFunc(all, func(a, b place) int { return a.r.First.Compare(b.r.First) })
	for k := 1; k < len(all); k++ {
		a, b := all[k-1], all[k]
		if a.r.Overlaps(b.r) {
			if a.set > b.set || a.set == b.set && a.index > b.index {
				a, b = b, a
			}
			return &RangeError{Range: fmt.Sprintf("ranges[%d][%d]", b.set, b.index), Value: b.r.String(),
				Rule: fmt.Sprintf("overlaps with ranges[%d][%d] %s", a.set, a.index, a.r)}
		}
	}
	return nil
}

// placed adds the position of a range to an error about it.
func placed(err error, position string) error {
	if e, ok := err.(*RangeError); ok {
		placed := *e
		placed.Range = position
		return &placed
	}
	return err
}

// RangeFor returns the range that addr lies in, or nil.
func (s RangeSet) RangeFor(addr netip.Addr) *Range {
	for i := range s {
		if s[i].Contains(addr) {
			return &s[i]
		}
	}
	return nil
}

// String returns the bounds of all ranges, separated by commas.
func (s RangeSet) String() string {
	texts := make([]string, len(s))
	for i := range s {
		texts[i] = s[i].String()
	}
	return strings.Join(texts, ",")
}

// String returns the bounds of all ranges, sets separated by semicolons.
func (p Pool) String() string {
	texts := make([]string, len(p))
	for i := range p {
		texts[i] = p[i].String()
	}
	return strings.Join(texts, "; ")
}

// after returns the address that follows cursor on the ring that the ranges
// of the set form, and its range. A cursor outside of the set, or none, is
// followed by the first address of the first range.
func (s RangeSet) after(cursor netip.Addr) (netip.Addr, *Range) {
	for i := range s {
		if !s[i].Contains(cursor) {
			continue
		}
		if cursor != s[i].Last {
			return cursor.Next(), &s[i]
		}
		next := &s[(i+1)%len(s)]
		return next.First, next
	}
	return s[0].First, &s[0]
}

// size returns the number of places on the ring, those of gateways included,
// or the largest uint64 if there are more.
func (s RangeSet) size() uint64 {
	var sum uint64
	for i := range s {
		n := s[i].size()
		if sum += n; sum < n {
			return math.MaxUint64
		}
	}
	return sum
}

// allocatable returns the number of addresses that can be handed out, or the
// largest uint64 if there are more.
func (s RangeSet) allocatable() uint64 {
	n := s.size()
	if n == math.MaxUint64 {
		return n
	}
	for i := range s {
		if s[i].Contains(s[i].Gateway) {
			n--
		}
	}
	return n
}

// serves says whether addr may be handed out from the set.
func (s RangeSet) serves(addr netip.Addr) bool {
	r := s.RangeFor(addr)
	return r != nil && addr != r.Gateway
}
