package masquerade

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// plainly is what arrange returns for prefixes, without regard to speed.
func plainly(list []netip.Prefix, is6 bool) nft.Ranges {
	var kept nft.Ranges
	for i, p := range list {
		s, is := prefixRange(p)
		if !is || s.First.Is6() != is6 {
			continue
		}
		inOther := func(j int, q netip.Prefix) bool {
			o, is := prefixRange(q)
			holds := is && o.First.Is6() == is6 && !s.First.Less(o.First) && !o.Last.Less(s.Last)
			return holds && (o != s || j < i) // of equal ones the first stays
		}
		if !slices.ContainsFunc(indices(list), func(j int) bool { return j != i && inOther(j, list[j]) }) {
			kept = append(kept, s)
		}
	}
	slices.SortFunc(kept, nft.Range.Compare)
	return kept
}

func indices[T any](list []T) []int {
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	return all
}

// randomPrefix returns one of so few that many are in others, or twice in a list.
func randomPrefix(random *rand.Rand) netip.Prefix {
	switch random.IntN(10) {
	case 0:
		return netip.Prefix{}
	case 1: // IPv4 in the clothes of IPv6
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 10, 13: byte(random.IntN(8))}), 104+random.IntN(25))
	case 2, 3, 4:
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1: byte(random.IntN(8)), 7: byte(random.IntN(4))}), 8+random.IntN(121))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(8)), byte(random.IntN(4)), byte(random.IntN(4))}), 8+random.IntN(25))
}

// Whatever becomes of a list, its spans are those of the list and not of its history.
func TestArrangeRandom(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 5))
		var a arranged[netip.Prefix]
		var list []netip.Prefix
		for step := range 500 {
			list = slices.Clone(list)
			for range 1 + random.IntN(4) {
				at := random.IntN(len(list) + 1)
				end := min(at+random.IntN(3), len(list))
				more := make([]netip.Prefix, random.IntN(3))
				for i := range more {
					more[i] = randomPrefix(random)
				}
				list = slices.Replace(list, at, end, more...)
			}
			switch random.IntN(40) {
			case 0:
				list = nil
			case 1:
				random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			}
			given := slices.Clone(list)
			kept := a.arrange(list, prefixRange)
			for _, is6 := range []bool{false, true} {
				if got, want := kept[familyOf(is6)], plainly(list, is6); !slices.Equal(got, want) {
					t.Fatalf("seed %d, step %d: of %v\ngot  %v\nwant %v", seed, step, list, got, want)
				}
			}
			if !slices.Equal(given, list) {
				t.Fatal("arrange has changed its input")
			}
		}
	}
}

// What has been returned before stays what it was: a ruleset is a plain value.
func TestArrangeLeavesWhatItReturned(t *testing.T) {
	var a arranged[netip.Prefix]
	first := a.arrange(prefixes("10.0.3.0/24", "10.0.1.0/24", "fd00:1::/64"), prefixRange)
	before := [2]nft.Ranges{slices.Clone(first[0]), slices.Clone(first[1])}
	second := a.arrange(prefixes("10.0.3.0/24", "10.0.2.0/24", "10.0.0.0/24", "fd00:1::/64"), prefixRange)
	if !slices.Equal(first[0], before[0]) || !slices.Equal(first[1], before[1]) {
		t.Errorf("it is %v now, and was %v", first, before)
	}
	if &first[1][0] != &second[1][0] {
		t.Error("a family in which nothing has changed is another array")
	}
}

// Changes of a node of many are found to be few, wherever they are.
func TestChangesAreFew(t *testing.T) {
	start := nodes(1000).Pods
	other := prefixes("10.99.0.0/24", "fd00:999::/64")
	for _, c := range []struct {
		name       string
		change     func([]netip.Prefix) []netip.Prefix
		gone, come int
	}{
		{"nothing", func(l []netip.Prefix) []netip.Prefix { return l }, 0, 0},
		{"one node's", func(l []netip.Prefix) []netip.Prefix { return slices.Replace(l, 800, 802, other...) }, 2, 2},
		{"two nodes', far apart", func(l []netip.Prefix) []netip.Prefix {
			return slices.Replace(slices.Replace(l, 1800, 1802, other...), 4, 6, other...)
		}, 4, 4},
		{"one comes, one leaves", func(l []netip.Prefix) []netip.Prefix {
			return slices.Insert(slices.Delete(l, 1000, 1002), 10, other...)
		}, 2, 2},
		{"one of a node's", func(l []netip.Prefix) []netip.Prefix { return slices.Delete(l, 9, 10) }, 1, 0},
		{"the last", func(l []netip.Prefix) []netip.Prefix { return l[:len(l)-2] }, 2, 0},
		{"all", func(l []netip.Prefix) []netip.Prefix { return nil }, 2000, 0},
	} {
		gone, come := changes(start, c.change(slices.Clone(start)))
		if len(gone) != c.gone || len(come) != c.come {
			t.Errorf("%s: %d are gone and %d have come, want %d and %d", c.name, len(gone), len(come), c.gone, c.come)
		}
	}
}

// One planner for one configuration after the other plans what a new one does.
func TestPlannerRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 7))
	var p Planner
	all := nodes(40)
	for range 500 {
		c := full()
		c.IPv4, c.IPv6 = random.IntN(4) > 0, random.IntN(4) > 0
		from := random.IntN(40)
		to := from + random.IntN(81-2*from)
		c.Pods, c.Nodes = slices.Clone(all.Pods[from:to]), slices.Clone(all.Nodes[from:to])
		if random.IntN(2) == 0 && len(c.Pods) > 0 {
			c.Pods[random.IntN(len(c.Pods))] = randomPrefix(random)
			c.Nodes[random.IntN(len(c.Nodes))] = randomPrefix(random).Addr()
		}
		if got, want := p.Plan(c).String(), Plan(c).String(); got != want {
			t.Fatalf("of %+v\ngot\n%s\nwant\n%s", c, got, want)
		}
	}
}
