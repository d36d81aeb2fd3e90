package announce

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/lease"
)

func members(count int) (all []Member) {
	for i := range count {
		all = append(all, Member{Node: fmt.Sprintf("n%d", i), Interfaces: []string{"eth0"}})
	}
	return all
}

func at(i int) Address {
	return Address{IP: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), Interfaces: []string{"eth0"}}
}

// Addresses are spread evenly, and a node that goes moves its own and no others.
func TestChoose(t *testing.T) {
	const nodes, addresses = 5, 5000
	all := members(nodes)
	count := map[string]int{}
	for i := range addresses {
		node, _ := choose(at(i), all)
		count[node]++
		without, _ := choose(at(i), all[1:])
		if node != "n0" && without != node {
			t.Fatalf("%s moves from %s to %s when n0 goes", at(i).IP, node, without)
		}
	}
	for node, n := range count {
		if n < addresses/nodes*8/10 || n > addresses/nodes*12/10 {
			t.Errorf("%s has %d of %d", node, n, addresses)
		}
	}
}

func TestWhoMay(t *testing.T) {
	all := members(3)
	all[0].Leaving, all[1].Interfaces = "cordoned", []string{"eth1"}
	a := at(1)
	expect := func(what, node string) {
		t.Helper()
		if got, nobody := choose(a, all); got != node || (node == "") != (nobody != "") {
			t.Errorf("%s: %q %q, want %q", what, got, nobody, node)
		}
	}
	expect("one leaves, one has another interface", "n2")
	a.Nodes = map[string]bool{"n0": true, "n1": true}
	expect("only one that leaves has an endpoint", "n0")
	a.Nodes = map[string]bool{}
	expect("no endpoint", "")
	a.Nodes = nil
	a.Interfaces = []string{"eth2"}
	expect("no interface", "")
}

// A node is gone only when a renewal of the own Lease, that began after the other's had run
// out, was seen.
func TestLiving(t *testing.T) {
	begin := time.Unix(1000, 0)
	seen := []lease.Seen{
		{Name: "a", Holder: "n0/1", At: begin, Annotations: Member{Node: "n0"}.Says()},
		{Name: "b", Holder: "n1/1", At: begin.Add(time.Second), Annotations: Member{Node: "n1", Leaving: "cordoned", Interfaces: []string{"eth0", "eth1"}}.Says()},
		{Name: "c", Annotations: Member{Node: "n2"}.Says()},
	}
	for _, test := range []struct {
		from, now time.Duration
		want      string
		silent    bool
	}{
		{0, 0, "n0 n1 ", false},
		{Duration - 1, Duration, "n0 n1 ", true}, // it may have renewed since
		{Duration, Duration, "n1 ", false},
		{Duration + time.Second, Duration + time.Second, "", false},
	} {
		all, silent, _ := living(seen, begin.Add(test.from), begin.Add(test.now))
		got := ""
		for _, m := range all {
			got += m.Node + " "
		}
		if got != test.want || silent != test.silent {
			t.Errorf("%+v: %q, silent %t", test, got, silent)
		}
	}
	all, _, next := living(seen, begin, begin)
	if m := all[1]; m.Leaving != "cordoned" || len(m.Interfaces) != 2 || !next.Equal(begin.Add(Duration)) {
		t.Errorf("%+v, next %s", m, next)
	}
}

func BenchmarkChoose(b *testing.B) {
	all := members(10)
	for b.Loop() {
		for i := range 1000 {
			choose(at(i), all)
		}
	}
}
