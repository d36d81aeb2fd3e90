package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// history is a list of nodes that changes at random, in so small a space that many
// are in each other's way and in that of others no more soon after.
type history struct {
	random *rand.Rand
	nodes  map[string]Node
}

func (h *history) address() netip.Addr {
	switch h.random.IntN(12) {
	case 0:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case 1:
		return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 10, 13: byte(h.random.IntN(4)), 15: byte(h.random.IntN(8))})
	case 2, 3:
		return netip.AddrFrom16([16]byte{0xfd, 1: byte(h.random.IntN(4)), 15: byte(h.random.IntN(8))})
	case 4:
		return netip.AddrFrom4([4]byte{172, 30, 0, byte(h.random.IntN(40))})
	}
	return netip.AddrFrom4([4]byte{10, byte(h.random.IntN(16)), byte(h.random.IntN(4)), byte(h.random.IntN(8))})
}

func (h *history) podCIDR() netip.Prefix {
	switch h.random.IntN(16) {
	case 0:
		return netip.PrefixFrom(h.address(), 12) // with host bits, as a rule
	case 1:
		return netip.PrefixFrom(netip.IPv4Unspecified(), h.random.IntN(9))
	case 2, 3, 4:
		a := netip.AddrFrom16([16]byte{0xfd, 1: byte(h.random.IntN(4)), 5: byte(h.random.IntN(4))})
		return netip.PrefixFrom(a, 15+h.random.IntN(50)).Masked()
	}
	a := netip.AddrFrom4([4]byte{10, byte(h.random.IntN(16)), byte(h.random.IntN(256)), byte(h.random.IntN(256))})
	return netip.PrefixFrom(a, 11+h.random.IntN(22)).Masked()
}

// node returns one that has the name, and else what chance gives it.
func (h *history) node(name string) Node {
	n := Node{Name: name, Zone: []string{"", "a", "b"}[h.random.IntN(3)]}
	if h.random.IntN(2) == 0 {
		n.Created = time.Unix(int64(h.random.IntN(5)), 0)
	}
	for range h.random.IntN(3) {
		n.Addresses = append(n.Addresses, h.address())
	}
	for range h.random.IntN(4) {
		n.PodCIDRs = append(n.PodCIDRs, h.podCIDR())
	}
	if h.random.IntN(10) == 0 {
		n.Malformed = append(n.Malformed, Refusal{Node: name, Field: entry("podCIDRs", len(n.PodCIDRs)), Value: `"x"`, Reason: "is not a prefix"})
		n.PodCIDRs = append(n.PodCIDRs, netip.Prefix{})
	}
	if h.random.IntN(200) == 0 {
		n.PodCIDRs = append(n.PodCIDRs, cidrs(0, 70)...)
	}
	return n
}

// step changes some nodes, mostly one, and returns the list.
func (h *history) step() []Node {
	times := 1
	if h.random.IntN(10) == 0 {
		times = h.random.IntN(40)
	}
	for range times {
		name := fmt.Sprint("n", h.random.IntN(60))
		n, there := h.nodes[name]
		switch {
		case !there || h.random.IntN(3) == 0:
			h.nodes[name] = h.node(name)
		case h.random.IntN(2) == 0:
			delete(h.nodes, name)
		case len(n.PodCIDRs) > 0:
			n.PodCIDRs = n.PodCIDRs[1:]
			h.nodes[name] = n
		}
	}
	nodes := slices.Collect(maps.Values(h.nodes))
	switch h.random.IntN(50) {
	case 0: // as no source has it
		nodes = append(nodes, h.node("n7"), h.node(""))
	default:
		slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	}
	return nodes
}

// Whatever happens to the list, a Judging says what Judge says.
func TestJudgingRandom(t *testing.T) {
	const steps, often = 500, 10
	for seed := range uint64(6) {
		h := &history{rand.New(rand.NewPCG(seed, 3)), map[string]Node{}}
		j := NewJudging("n3")
		parts := 0
		for step := range steps {
			before, nodes := slices.Clone(j.nodes), h.step()
			accepted, refused := j.Judge(nodes)
			wantAccepted, wantRefused := Judge("n3", nodes)
			if !slices.EqualFunc(accepted, wantAccepted, Node.Equal) || !slices.Equal(refused, wantRefused) {
				t.Fatalf("seed %d, step %d: after\n%s\nthe list\n%s\nis judged\n%s\nwant\n%s", seed, step,
					textOf(before, nil), textOf(nodes, nil), textOf(accepted, refused), textOf(wantAccepted, wantRefused))
			}
			if step%often != 0 || !divisible(nodes) {
				continue
			}
			fresh := NewJudging("n3")
			fresh.Judge(before)
			if affected := fresh.note(nodes); 2*len(affected) <= len(nodes) {
				parts++
			}
			fresh = NewJudging("n3")
			fresh.note(nodes)
			if !slices.Equal(j.claims.sorted, fresh.claims.sorted) || j.claims.lengths != fresh.claims.lengths {
				t.Fatalf("seed %d, step %d: claims are\n%v\nwant\n%v", seed, step, j.claims.sorted, fresh.claims.sorted)
			}
		}
		if parts < steps/often/10 {
			t.Errorf("seed %d: a part was judged in %d of %d steps: that tests little", seed, parts, steps/often)
		}
	}
}

// More podCIDRs than there may be are judged as a whole, and so is the list after.
func TestJudgingLimit(t *testing.T) {
	var crowd []Node
	for i := range 1026 {
		crowd = append(crowd, Node{Name: fmt.Sprintf("n%04d", i), PodCIDRs: cidrs(i*64, 64)})
	}
	j := NewJudging("n1025")
	for _, n := range []int{1024, 1026, 1023} {
		accepted, refused := j.Judge(crowd[:n])
		wantAccepted, wantRefused := Judge("n1025", crowd[:n])
		if !slices.EqualFunc(accepted, wantAccepted, Node.Equal) || !slices.Equal(refused, wantRefused) {
			t.Errorf("%d nodes: refused are %v, want %v", n, refused, wantRefused)
		}
	}
}

// Of many nodes only those are looked at that a change concerns.
func TestJudgingAffected(t *testing.T) {
	start := cluster(2000)
	slices.SortFunc(start, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	at := func(name string) int { return slices.IndexFunc(start, func(n Node) bool { return n.Name == name }) }
	with := func(name, line string) func([]Node) []Node {
		return func(nodes []Node) []Node { nodes[at(name)] = nodesOf(t, line)[0]; return nodes }
	}
	j := NewJudging("node-1")
	for _, step := range []struct {
		name   string
		change func([]Node) []Node
		want   string
	}{
		{"nothing", func(nodes []Node) []Node { return nodes }, ""},
		{"another podCIDR", with("node-7", "node-7 172.30.0.7 10.99.0.0/24"), "node-7"},
		{"another's podCIDR", with("node-7", "node-7 172.30.0.7 10.0.9.0/24"), "node-7 node-9"},
		{"two others' podCIDRs", with("node-7", "node-7 10.0.8.0/23"), "node-7 node-8 node-9"},
		{"over the address of one", with("node-7", "node-7 172.30.0.20/31"), "node-20 node-21 node-7 node-8 node-9"},
		{"a group of three changes in one", with("node-20", "node-20 172.30.0.99"), "node-20 node-21 node-7 node-99"},
		{"leaves", func(nodes []Node) []Node { return slices.Delete(nodes, at("node-7"), at("node-7")+1) }, "node-20 node-21 node-7 node-99"},
		{"comes back", func(nodes []Node) []Node { return nodes }, "node-7"},
	} {
		nodes := step.change(slices.Clone(start))
		if step.name == "a group of three changes in one" {
			nodes[at("node-7")] = j.nodes[at("node-7")]
		}
		if j.nodes == nil {
			j.Judge(start)
		}
		before := *j
		before.claims.sorted = slices.Clone(j.claims.sorted)
		affected := slices.Sorted(maps.Keys(before.note(nodes)))
		if got := strings.Join(affected, " "); step.want != "" && got != step.want || step.want == "" && got != "" {
			t.Errorf("%s: judged are %s, want %s", step.name, got, step.want)
		}
		j.Judge(nodes)
	}
}

// A node that somebody keeps does not keep the list that it was in.
func TestJudgedNodesAreOfThemselves(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const rounds, nodes = 20, 2000
	var kept []Node
	before := heap()
	for i := range rounds {
		list := cluster(nodes)
		list[0].PodCIDRs = list[1].PodCIDRs // one is refused
		accepted, _ := Judge("node-1", list)
		kept = append(kept, accepted[i])
	}
	if each := (heap() - before) / rounds; each > 10_000 {
		t.Errorf("one node of %d keeps %d bytes", nodes, each)
	}
	runtime.KeepAlive(kept)
}

// One node of 5,000 gets other podCIDRs: judged by what has changed, and all anew.
func BenchmarkJudging(b *testing.B) {
	lists := [2][]Node{cluster(5000), cluster(5000)}
	lists[1][77].PodCIDRs = nodesOf(b, "n 10.99.0.0/24 fd00:999::/64")[0].PodCIDRs
	for i := range lists {
		slices.SortFunc(lists[i], func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	}
	b.Run("change", func(b *testing.B) {
		j := NewJudging("node-1")
		j.Judge(lists[1])
		for i := 0; b.Loop(); i++ {
			j.Judge(lists[i%2])
		}
	})
	b.Run("anew", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			Judge("node-1", lists[i%2])
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			NewJudging("node-1").Judge(lists[0])
		}
	})
}
