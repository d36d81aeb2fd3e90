package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// endpointN is the n-th of the endpoints that rosters are made of.
func endpointN(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), 8080)
}

func endpointsN(numbers ...int) (all []netip.AddrPort) {
	for _, n := range numbers {
		all = append(all, endpointN(n))
	}
	return all
}

// numbered returns a roster's endpoints by number.
func (r *roster) numbered() (all []netip.AddrPort) {
	for number := range r.size() {
		all = append(all, r.at(uint16(number)))
	}
	return all
}

// rosterText lists the last bytes of a roster's addresses, by number.
func rosterText(r *roster) string {
	var all []int
	for _, at := range r.numbered() {
		all = append(all, int(at.Addr().As4()[3]))
	}
	return fmt.Sprint(all)
}

func TestRoster(t *testing.T) {
	all := newRoster(endpointsN(1, 2, 3, 4, 5, 6))
	for _, test := range []struct {
		name       string
		gone, come []int
		want       string
	}{
		{"nothing", nil, nil, "[1 2 3 4 5 6]"},
		{"the last goes", []int{6}, nil, "[1 2 3 4 5]"},
		{"the first goes", []int{1}, nil, "[6 2 3 4 5]"},
		{"two go", []int{2, 4}, nil, "[1 6 3 5]"},
		{"the last and others go", []int{2, 5, 6}, nil, "[1 4 3]"},
		{"one comes", nil, []int{0}, "[1 2 3 4 5 6 0]"},
		{"one is replaced", []int{3}, []int{9}, "[1 2 9 4 5 6]"},
		{"more go", []int{1, 3, 5}, []int{9}, "[9 2 6 4]"},
		{"more come", []int{3}, []int{0, 7, 8}, "[1 2 0 4 5 6 7 8]"},
		{"all go", []int{1, 2, 3, 4, 5, 6}, nil, "[]"},
		{"all are replaced", []int{1, 2, 3, 4, 5, 6}, []int{7}, "[7]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := rosterText(all.replace(endpointsN(test.gone...), endpointsN(test.come...))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	if got := rosterText(all); got != "[1 2 3 4 5 6]" {
		t.Errorf("the roster itself became %s", got)
	}
}

// TestRosterHistory: after any history a roster has each endpoint that it is to have
// once, without gaps, and no step gave another number to more than had to have one.
func TestRosterHistory(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	var r *roster
	members := map[int]bool{}
	for step := range 1000 {
		var gone, come []netip.AddrPort
		before := maps.Clone(members)
		most := 1 + random.IntN(1+step%40)
		for range most {
			n := random.IntN(600)
			members[n] = !members[n]
		}
		for n := range 600 {
			switch was, is := before[n], members[n]; {
			case was && !is:
				gone = append(gone, endpointN(n))
			case is && !was:
				come = append(come, endpointN(n))
			}
		}
		old := r.numbered()
		next := r.replace(gone, come)
		if !slices.Equal(old, r.numbered()) {
			t.Fatalf("step %d: the roster before was written to", step)
		}
		changed := 0
		r.differ(next, func(_ int, before, after netip.AddrPort) {
			changed++
			if before.IsValid() && !slices.Contains(gone, before) && !next.has(before) {
				t.Fatalf("step %d: %s is lost", step, before)
			}
		})
		// One that goes while none comes is its own number and the last one's.
		if must := len(come) + 2*max(0, len(gone)-len(come)); changed > must {
			t.Fatalf("step %d: %d are gone, %d have come, %d numbers have changed", step, len(gone), len(come), changed)
		}
		r = next
		var want []netip.AddrPort
		for n := range 600 {
			if members[n] {
				want = append(want, endpointN(n))
			}
			if r.has(endpointN(n)) != members[n] {
				t.Fatalf("step %d: %s is there: %t", step, endpointN(n), !members[n])
			}
		}
		if !slices.Equal(r.sorted(), want) || r.size() != len(want) {
			t.Fatalf("step %d: got %v, want %v", step, r.sorted(), want)
		}
	}
}

// TestRosterAdopts: numbers that are found elsewhere are taken over, and what is found
// of others, twice, or not at all does no harm.
func TestRosterAdopts(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	for range 500 {
		size := 1 + random.IntN(20+random.IntN(2)*400)
		var members []int
		for n := range size {
			members = append(members, n)
		}
		r := newRoster(endpointsN(members...))
		have := map[uint32]netip.AddrPort{}
		first := map[netip.AddrPort]uint32{} // who is to keep which
		for i, n := range random.Perm(size) {
			if random.IntN(4) == 0 {
				n = random.IntN(size + 5) // twice, or not one of them
			}
			if random.IntN(5) == 0 {
				continue
			}
			at := endpointN(n)
			have[uint32(i)] = at
			if _, twice := first[at]; !twice && r.has(at) {
				first[at] = uint32(i)
			}
		}
		have[uint32(size+3)] = endpointN(0)
		want := r.sorted()
		r.adopt(have)
		if !slices.Equal(r.sorted(), want) {
			t.Fatalf("%v: got %v, want %v", have, r.sorted(), want)
		}
		for at, number := range first {
			if r.at(uint16(number)) != at {
				t.Fatalf("%v: %s did not keep %d: %v", have, at, number, r.numbered())
			}
		}
	}
}
