package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// nodesOf reads nodes, one a line: the name, then in any order @year of
// creation, addresses and podCIDRs.
func nodesOf(t testing.TB, text string) []Node {
	t.Helper()
	var nodes []Node
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		n := Node{Name: strings.Trim(words[0], `"`)}
		for _, word := range words[1:] {
			switch year, dated := strings.CutPrefix(word, "@"); {
			case dated:
				created, err := time.Parse("2006", year)
				if err != nil {
					t.Fatal(err)
				}
				n.Created = created
			case word == "no-prefix":
				n.PodCIDRs = append(n.PodCIDRs, netip.Prefix{})
			case word == "no-address":
				n.Addresses = append(n.Addresses, netip.Addr{})
			case strings.Contains(word, "/"):
				n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(word))
			default:
				n.Addresses = append(n.Addresses, netip.MustParseAddr(word))
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// textOf is what Judge found: the nodes, and then the refusals.
func textOf(accepted []Node, refused []Refusal) string {
	var b strings.Builder
	for _, n := range accepted {
		b.WriteString(n.Name)
		if n.Zone != "" {
			b.WriteString(" zone=" + n.Zone)
		}
		for _, a := range n.Addresses {
			b.WriteString(" " + a.String())
		}
		for _, p := range n.PodCIDRs {
			b.WriteString(" " + p.String())
		}
		b.WriteString("\n")
	}
	for _, r := range refused {
		b.WriteString(r.Error() + "\n")
	}
	return b.String()
}

// lines removes the indentation of a table's text.
func lines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func TestJudge(t *testing.T) {
	for _, test := range []struct{ name, self, nodes, want string }{{
		name: "nodes that agree are accepted as they are, by name",
		self: "n1",
		nodes: `
			n3
			n2 172.30.0.2 fd00:30::2 10.244.2.0/24 fd00:244:2::/64 10.245.2.0/24
			n1 172.30.0.1 10.244.1.0/24
			n5 10.244.5.0/24
			n4 172.30.0.4`,
		want: `
			n1 172.30.0.1 10.244.1.0/24
			n2 172.30.0.2 fd00:30::2 10.244.2.0/24 fd00:244:2::/64 10.245.2.0/24
			n3
			n4 172.30.0.4
			n5 10.244.5.0/24`,
	}, {
		name: "of two that claim the same, the first by name keeps it",
		self: "n9",
		nodes: `
			n2 172.30.0.2 10.244.1.0/24 fd00:244:2::/64
			n1 172.30.0.1 10.244.1.0/24`,
		want: `
			n1 172.30.0.1 10.244.1.0/24
			n2 172.30.0.2 fd00:244:2::/64
			node n2: podCIDRs[0] 10.244.1.0/24: overlaps 10.244.1.0/24 of node n1`,
	}, {
		name: "the older one has precedence over the first by name, and a known age over an unknown",
		self: "n9",
		nodes: `
			n1 @2026 10.244.1.0/24
			n2 @2025 10.244.1.0/24
			n0 10.244.1.0/24`,
		want: `
			n0
			n1
			n2 10.244.1.0/24
			node n0: podCIDRs[0] 10.244.1.0/24: overlaps 10.244.1.0/24 of node n2
			node n1: podCIDRs[0] 10.244.1.0/24: overlaps 10.244.1.0/24 of node n2`,
	}, {
		name: "the own node has precedence over all",
		self: "n3",
		nodes: `
			n1 @2024 10.244.0.0/16
			n2 @2025 10.244.3.0/25
			n3 @2026 10.244.3.0/24`,
		want: `
			n1
			n2
			n3 10.244.3.0/24
			node n1: podCIDRs[0] 10.244.0.0/16: overlaps 10.244.3.0/24 of node n3
			node n2: podCIDRs[0] 10.244.3.0/25: overlaps 10.244.3.0/24 of node n3`,
	}, {
		name: "who is refused takes nothing from others",
		self: "n9",
		nodes: `
			n1 10.244.3.0/24
			n2 10.244.0.0/16
			n3 10.244.4.0/24 10.244.5.0/24`,
		want: `
			n1 10.244.3.0/24
			n2
			n3 10.244.4.0/24 10.244.5.0/24
			node n2: podCIDRs[0] 10.244.0.0/16: overlaps 10.244.3.0/24 of node n1`,
	}, {
		name: "a broad one shuts out all that is inside, at any depth",
		self: "n9",
		nodes: `
			n1 10.244.0.0/16
			n2 10.244.1.0/24 10.245.0.0/24
			n3 10.244.1.128/25
			n4 10.244.0.0/24`,
		want: `
			n1 10.244.0.0/16
			n2 10.245.0.0/24
			n3
			n4
			node n2: podCIDRs[0] 10.244.1.0/24: overlaps 10.244.0.0/16 of node n1
			node n3: podCIDRs[0] 10.244.1.128/25: overlaps 10.244.0.0/16 of node n1
			node n4: podCIDRs[0] 10.244.0.0/24: overlaps 10.244.0.0/16 of node n1`,
	}, {
		name:  "overlaps within a node",
		self:  "n1",
		nodes: `n1 10.244.1.0/24 10.244.1.0/25 fd00::/64 fd00::/64`,
		want: `
			n1 10.244.1.0/24 fd00::/64
			node n1: podCIDRs[1] 10.244.1.0/25: overlaps podCIDRs[0] 10.244.1.0/24 of the same node
			node n1: podCIDRs[3] fd00::/64: overlaps podCIDRs[2] fd00::/64 of the same node`,
	}, {
		name: "podCIDRs that cannot be one",
		self: "n1",
		nodes: `n1 10.244.1.5/24 0.0.0.0/0 ::/0 10.0.0.0/7 fc00::/7 0.1.0.0/16 127.0.0.0/24 169.254.7.0/24 224.1.0.0/16 255.255.255.0/24
			n2 ::/64 ::1/128 fe80::/64 ff02::/16 ::ffff:10.1.0.0/112 fd00:244:1::5/64 no-prefix fd00:244:2::/64 240.0.0.0/24`,
		want: `
			n1
			n2 fd00:244:2::/64 240.0.0.0/24
			node n1: podCIDRs[0] 10.244.1.5/24: has host bits set: 10.244.1.0/24 was probably meant
			node n1: podCIDRs[1] 0.0.0.0/0: is the default route
			node n1: podCIDRs[2] ::/0: is the default route
			node n1: podCIDRs[3] 10.0.0.0/7: is broader than /8
			node n1: podCIDRs[4] fc00::/7: is broader than /16
			node n1: podCIDRs[5] 0.1.0.0/16: covers the unspecified address
			node n1: podCIDRs[6] 127.0.0.0/24: covers loopback addresses
			node n1: podCIDRs[7] 169.254.7.0/24: covers link-local addresses
			node n1: podCIDRs[8] 224.1.0.0/16: covers multicast addresses
			node n1: podCIDRs[9] 255.255.255.0/24: covers the broadcast address
			node n2: podCIDRs[0] ::/64: covers the unspecified address
			node n2: podCIDRs[1] ::1/128: covers loopback addresses
			node n2: podCIDRs[2] fe80::/64: covers link-local addresses
			node n2: podCIDRs[3] ff02::/16: covers multicast addresses
			node n2: podCIDRs[4] ::ffff:10.1.0.0/112: is an IPv4 prefix written as IPv6
			node n2: podCIDRs[5] fd00:244:1::5/64: has host bits set: fd00:244:1::/64 was probably meant
			node n2: podCIDRs[6] invalid Prefix: is not a prefix`,
	}, {
		name: "the largest podCIDRs",
		self: "n1",
		nodes: `n1 10.0.0.0/8 fd00::/16
			n2 11.255.255.255/32 fd01::1/128`,
		want: `
			n1 10.0.0.0/8 fd00::/16
			n2 11.255.255.255/32 fd01::1/128`,
	}, {
		name: "podCIDRs over the underlay, whoever has precedence",
		self: "n1",
		nodes: `
			n1 172.30.0.1 172.30.0.0/24 fd00:30::/64 10.244.1.0/24
			n2 172.30.1.2 172.30.1.2/32 10.244.2.0/24
			n3 fd00:30::3`,
		want: `
			n1 172.30.0.1 10.244.1.0/24
			n2 172.30.1.2 10.244.2.0/24
			n3 fd00:30::3
			node n1: podCIDRs[0] 172.30.0.0/24: holds the address 172.30.0.1 of node n1
			node n1: podCIDRs[1] fd00:30::/64: holds the address fd00:30::3 of node n3
			node n2: podCIDRs[0] 172.30.1.2/32: holds the address 172.30.1.2 of node n2`,
	}, {
		name:  "a podCIDR refused for itself shuts out nobody",
		self:  "n1",
		nodes: "n1 172.30.0.1 172.0.0.0/8\nn2 172.31.0.0/24",
		want: `
			n1 172.30.0.1
			n2 172.31.0.0/24
			node n1: podCIDRs[0] 172.0.0.0/8: holds the address 172.30.0.1 of node n1`,
	}, {
		name: "addresses",
		self: "n1",
		nodes: `
			n1 ::ffff:172.30.0.1 172.30.0.1 127.0.0.1 ::1 0.0.0.0 :: 224.0.0.1 ff02::1 169.254.0.1 fe80::1 fd00::1%eth0 255.255.255.255 no-address fd00::1
			n2 172.30.0.2 172.30.0.1 10.244.2.0/24`,
		want: `
			n1 172.30.0.1 fd00::1
			n2 172.30.0.2 10.244.2.0/24
			node n1: addresses[2] 127.0.0.1: is a loopback address
			node n1: addresses[3] ::1: is a loopback address
			node n1: addresses[4] 0.0.0.0: is the unspecified address
			node n1: addresses[5] ::: is the unspecified address
			node n1: addresses[6] 224.0.0.1: is a multicast address
			node n1: addresses[7] ff02::1: is a multicast address
			node n1: addresses[8] 169.254.0.1: is a link-local address, which other links do not reach
			node n1: addresses[9] fe80::1: is a link-local address, which other links do not reach
			node n1: addresses[10] fd00::1%eth0: has a zone, which means nothing on another node
			node n1: addresses[11] 255.255.255.255: is the broadcast address
			node n1: addresses[12] invalid IP: is not an address
			node n2: addresses[1] 172.30.0.1: is an address of node n1 too`,
	}, {
		name: "names",
		self: "n1",
		nodes: `
			n1 172.30.0.7 10.244.7.0/24
			n1 172.30.0.1 10.244.1.0/24
			"" 172.30.0.3 10.244.3.0/24
			n2 172.30.0.7 10.244.7.0/24`,
		want: `
			n1 172.30.0.1 10.244.1.0/24
			n2 172.30.0.7 10.244.7.0/24
			node : name "": the node with address 172.30.0.3 has no name
			node n1: name n1: the node with address 172.30.0.7 has the name of the node with address 172.30.0.1`,
	}} {
		t.Run(test.name, func(t *testing.T) {
			nodes := nodesOf(t, test.nodes)
			if got, want := textOf(Judge(test.self, nodes)), lines(test.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			sameInAnyOrder(t, test.self, nodes)
		})
	}
}

// sameInAnyOrder checks that Judge looks at the set of nodes alone.
func sameInAnyOrder(t *testing.T, self string, nodes []Node) {
	t.Helper()
	wantNodes, wantRefused := Judge(self, nodes)
	for range 20 {
		shuffled := slices.Clone(nodes)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		given := slices.Clone(shuffled)
		accepted, refused := Judge(self, shuffled)
		if !slices.EqualFunc(accepted, wantNodes, Node.Equal) || !slices.Equal(refused, wantRefused) {
			t.Fatalf("in another order:\n%s\nfirst\n%s", textOf(accepted, refused), textOf(wantNodes, wantRefused))
		}
		if !reflect.DeepEqual(given, shuffled) {
			t.Fatal("Judge has changed the order of its input")
		}
	}
}

// What a source could not read is passed on, keeps its place, and is not
// refused a second time.
func TestJudgeMalformed(t *testing.T) {
	nodes := nodesOf(t, "n1 no-address 172.30.0.1 no-prefix 10.244.1.5/24 10.244.2.0/24")
	nodes[0].Malformed = []Refusal{
		{Node: "n1", Field: "podCIDRs[0]", Value: `"10.244.x.0/24"`, Reason: "is not a prefix"},
		{Node: "n1", Field: "addresses[0]", Value: `"nowhere"`, Reason: "is not an IP address"},
	}
	want := lines(`
		n1 172.30.0.1 10.244.2.0/24
		node n1: addresses[0] "nowhere": is not an IP address
		node n1: podCIDRs[0] "10.244.x.0/24": is not a prefix
		node n1: podCIDRs[1] 10.244.1.5/24: has host bits set: 10.244.1.0/24 was probably meant`)
	accepted, refused := Judge("n1", nodes)
	if got := textOf(accepted, refused); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(accepted[0].Malformed) != 0 {
		t.Error("an accepted node has malformed entries")
	}
}

func TestJudgeLimits(t *testing.T) {
	many := Node{Name: "many", PodCIDRs: cidrs(0, 1_000_000)}
	accepted, refused := Judge("n1", []Node{many, {Name: "n1", PodCIDRs: nodesOf(t, "n1 fd00::/64")[0].PodCIDRs}})
	if got := len(accepted[0].PodCIDRs); got != 64 {
		t.Errorf("%d podCIDRs of a node are accepted", got)
	}
	if got, want := textOf(nil, refused), "node many: podCIDRs 1000000: is more than 64 podCIDRs for a node; those after the first 64 are left out\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}

	var crowd []Node
	for i := range 1026 {
		crowd = append(crowd, Node{Name: fmt.Sprintf("n%04d", i), PodCIDRs: cidrs(i*64, 64)})
	}
	accepted, refused = Judge("n1025", crowd)
	total := 0
	for _, n := range accepted {
		total += len(n.PodCIDRs)
	}
	if total != 65_536 || len(accepted) != len(crowd) {
		t.Errorf("%d podCIDRs of %d nodes are accepted", total, len(accepted))
	}
	// The own node has precedence, so the last two of the others are beyond.
	want := lines(`
		node n1023: podCIDRs 10.0.255.192/32: is beyond the limit of 65536 podCIDRs in all, with 64 of the node
		node n1024: podCIDRs 10.1.0.0/32: is beyond the limit of 65536 podCIDRs in all, with 64 of the node`)
	if got := textOf(nil, refused); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// cidrs returns n podCIDRs of one address, from the given one of 10.0.0.0 on.
func cidrs(from, n int) []netip.Prefix {
	prefixes := make([]netip.Prefix, n)
	for i := range prefixes {
		at := from + i
		prefixes[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)}), 32)
	}
	return prefixes
}

// What Judge accepts holds together, whatever it is given: the rules once more,
// in the plainest form.
func TestJudgeRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		nodes := randomNodes(random, 1+random.IntN(30))
		self := nodes[random.IntN(len(nodes))].Name
		accepted, refused := Judge(self, nodes)
		if got, want := textOf(accepted, refused), textOf(plainly(self, nodes), refused); got != want {
			t.Fatalf("of\n%s\ngot\n%s\nwant\n%s", textOf(nodes, nil), got, want)
		}
		sameInAnyOrder(t, self, nodes)
	}
}

// plainly is Judge's rule for podCIDRs without regard to speed, for nodes with
// good names and addresses of their own.
func plainly(self string, nodes []Node) []Node {
	type owned struct {
		prefix netip.Prefix
		name   string
	}
	var taken []owned
	var accepted []Node
	_, byPrecedence := ranked(self, nodes)
	for _, n := range byPrecedence {
		good := Node{Name: n.Name, Addresses: n.Addresses, Created: n.Created}
		for _, p := range n.PodCIDRs {
			free := !slices.ContainsFunc(taken, func(o owned) bool { return o.prefix.Overlaps(p) })
			for _, other := range nodes {
				free = free && !slices.ContainsFunc(other.Addresses, p.Contains)
			}
			if free {
				taken = append(taken, owned{p, n.Name})
				good.PodCIDRs = append(good.PodCIDRs, p)
			}
		}
		accepted = append(accepted, good)
	}
	slices.SortFunc(accepted, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return accepted
}

// randomNodes returns nodes in so small a space that most overlap.
func randomNodes(random *rand.Rand, n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprintf("n%d", i)}
		if random.IntN(4) == 0 {
			nodes[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), 0, byte(i)})}
		}
		if random.IntN(2) == 0 {
			nodes[i].Created = time.Unix(int64(random.IntN(5)), 0)
		}
		for range random.IntN(5) {
			a := netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), byte(random.IntN(256)), byte(random.IntN(256))})
			nodes[i].PodCIDRs = append(nodes[i].PodCIDRs, netip.PrefixFrom(a, 14+random.IntN(19)).Masked())
		}
	}
	return nodes
}

func TestEqual(t *testing.T) {
	base := nodesOf(t, "n1 @2026 172.30.0.1 10.244.1.0/24")[0]
	if !base.Equal(nodesOf(t, "n1 @2026 172.30.0.1 10.244.1.0/24")[0]) {
		t.Error("a node is not equal to its like")
	}
	for _, other := range nodesOf(t, `
		n2 @2026 172.30.0.1 10.244.1.0/24
		n1 @2025 172.30.0.1 10.244.1.0/24
		n1 @2026 172.30.0.2 10.244.1.0/24
		n1 @2026 172.30.0.1 10.244.2.0/24
		n1 @2026 172.30.0.1`) {
		if base.Equal(other) {
			t.Errorf("%v is equal to %v", base, other)
		}
	}
	malformed := base
	malformed.Malformed = []Refusal{{Node: "n1"}}
	if base.Equal(malformed) {
		t.Error("a malformed entry makes no difference")
	}
}

// cluster returns n nodes of two families that agree.
func cluster(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		high, low := byte(i>>8), byte(i)
		nodes[i] = Node{
			Name: fmt.Sprintf("node-%d", i),
			Addresses: []netip.Addr{
				netip.AddrFrom4([4]byte{172, 30, high, low}),
				netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x30, 14: high, 15: low}),
			},
			PodCIDRs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, high, low, 0}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 2, 0x44, high, low}), 64),
			},
			Created: time.Unix(int64(i), 0),
		}
	}
	return nodes
}

// Every 5,000 nodes with two podCIDRs each, agreeing; all inside of one broad
// podCIDR; and all the same.
func BenchmarkJudge(b *testing.B) {
	agreeing := cluster(5000)
	slices.SortFunc(agreeing, func(a, b Node) int { return strings.Compare(a.Name, b.Name) }) // as the sources do
	broad := append(cluster(5000), Node{Name: "broad", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	same := cluster(5000)
	for i := range same {
		same[i].PodCIDRs = same[0].PodCIDRs
	}
	for _, c := range []struct {
		name  string
		nodes []Node
	}{{"agreeing", agreeing}, {"broad", broad}, {"same", same}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Judge("node-77", c.nodes)
			}
		})
	}
}
