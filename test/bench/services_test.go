package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/bench/processor"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// What is supplied is what both agents balance, and all of it is one pod's.
func TestSupply(t *testing.T) {
	clusterIPs, pod := netip.MustParsePrefix(serviceCIDR), netip.MustParsePrefix(supplyCIDR)
	for _, s := range []*supply{newSupply(10_000, 10), newSupply(1, 5000)} {
		seen := map[netip.Addr]bool{}
		changed := map[netip.Addr]bool{}
		for n := range 41 {
			slice, fresh := s.move(n)
			_, read, counts := service.FromSlice(slice)
			if !counts || !slices.ContainsFunc(read.Endpoints, func(e service.Endpoint) bool { return e.Address == fresh }) {
				t.Fatalf("%s is not in the slice that changes: %v", fresh, read)
			}
			changed[fresh] = true
		}
		for i := range s.services {
			read, balanced := service.FromService(s.service(i))
			if !balanced || len(read.ClusterIPs) != 1 || read.ClusterIPs[0] != s.front(i).Addr() || read.Ports[0].Port != s.front(i).Port() || !clusterIPs.Contains(read.ClusterIPs[0]) {
				t.Fatalf("Service %d is %+v", i, read)
			}
			for k := range (s.endpoints + perSlice - 1) / perSlice {
				owner, slice, counts := service.FromSlice(s.slice(i, k))
				if !counts || owner != read.Name || slice.Ports[0].Port != endpointPort {
					t.Fatalf("slice %d of Service %d is %+v", k, i, slice)
				}
				there := map[netip.Addr]bool{} // in whatever order
				for j := k * perSlice; j < min(s.endpoints, (k+1)*perSlice); j++ {
					there[s.endpoint(i, j).Addr()] = true
				}
				if len(slice.Endpoints) != len(there) {
					t.Fatalf("slice %d of Service %d has %d endpoints, want %d", k, i, len(slice.Endpoints), len(there))
				}
				for _, e := range slice.Endpoints {
					if !there[e.Address] || seen[e.Address] || !pod.Contains(e.Address) || !e.Ready {
						t.Fatalf("an endpoint of slice %d of Service %d is %+v", k, i, e)
					}
					seen[e.Address] = true
					delete(changed, e.Address)
				}
			}
		}
		if len(seen) != s.services*s.endpoints || len(changed) > 0 {
			t.Errorf("%s: there are %d endpoints, and of the changed ones not %v", s, len(seen), changed)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 10045: "10,045", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestEnough(t *testing.T) {
	for _, c := range []struct {
		of   sample
		want bool
	}{{nil, false}, {sample{9 * time.Second}, false}, {sample{9 * time.Second, 2 * time.Second}, true}} {
		if got := enough(c.of); got != c.want {
			t.Errorf("%v is enough: %v", c.of, got)
		}
	}
}

func TestVerdictsOnBalancers(t *testing.T) {
	fast := figures{first: sample{1}, change: sample{1}, cpu: 1, began: 1, changed: 1, most: 1, connect: sample{100}, connectDirectly: sample{90}, rules: 23}
	slow := figures{first: sample{4}, change: sample{2}, cpu: 10, began: 4, changed: 1, connect: sample{100}, rules: 1000}
	slower := fast
	slower.connect, slower.rules, slower.change = sample{120}, 24, sample{21 * time.Millisecond}
	all := []*balanced{
		{newSupply(10, 10), []*balancer{{name: oursBalancing, figures: fast}, {name: theirsBalancing, figures: slow}}},
		{newSupply(1000, 10), []*balancer{{name: oursBalancing, figures: slower}}},
	}
	var got strings.Builder
	for _, r := range balanceRatios(all) {
		fmt.Fprintln(&got, strings.TrimSpace(strings.Join(r.row(), " | ")))
	}
	for _, want := range []string{
		"10 × 10: first sync | 0.25 | ≤ 0.5 | yes",
		"10 × 10: a change | 0.50 | ≤ 0.3 | no",
		"10 × 10: a change, flatnet | 0.00 ms | ≤ 20 ms | yes",
		"1,000 × 10: a change, flatnet | 21.00 ms | ≤ 20 ms | no",
		"10 × 10: memory after changes | 1.00 | ≤ 0.5 | no",
		"10 × 10: memory at most | not measured | ≤ 0.5 |",
		"10 × 10: a new connection | 1.00 | ≤ 1 | yes",
		"1,000 × 10: a new connection | not measured | ≤ 1 |",
		"flatnet, 1,000 × 10 / 10 × 10: a new connection / directly | 1.20 | ≤ 1.1 | no",
		"flatnet, 1,000 × 10 / 10 × 10: rules | 24 / 23 | the same | no",
	} {
		if !strings.Contains(got.String(), want+"\n") {
			t.Errorf("%q is not in\n%s", want, got.String())
		}
	}
}

// What a transaction writes is told with the address in it, once it is in force.
func TestTablesAreWatched(t *testing.T) {
	lab := netlab.Start(t)
	space := lab.Namespace("tables")
	look := tables{space}
	nft := func(command string) {
		t.Helper()
		if _, err := space.Output("nft", command); err != nil {
			t.Fatal(err)
		}
	}
	nft("add table ip t; add chain ip t c; add map ip t m { type ipv4_addr : ipv4_addr ; }; add rule ip t c accept; add rule ip t c drop")
	for get, want := range map[uint16]int{unix.NFT_MSG_GETRULE: 2, unix.NFT_MSG_GETCHAIN: 1} {
		if n, err := look.count(get); err != nil || n != want {
			t.Errorf("%d are counted, %v; want %d", n, err, want)
		}
	}
	watch, err := look.changes()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.close()
	for _, c := range []struct{ address, command string }{
		{"10.140.0.16", "add element ip t m { 10.96.0.1 : 10.140.0.16 }"},
		{"10.140.0.17", "add rule ip t c ip daddr 10.140.0.17 accept"},
	} {
		nft("add element ip t m { 10.96.0.2 : 10.128.0.1 }; delete element ip t m { 10.96.0.2 }")
		begin := time.Now()
		nft(c.command)
		told, err := watch.await(netip.MustParseAddr(c.address), pace.Far())
		if err != nil || told.Before(begin) {
			t.Errorf("%s is told at %s, begun at %s: %v", c.address, told, begin, err)
		}
		if err := watch.forget(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := watch.await(netip.MustParseAddr("10.140.0.18"), time.Millisecond); err == nil {
		t.Error("what nobody wrote is told")
	}
	if err := look.empty(); err != nil {
		t.Fatal(err)
	}
	if n, err := look.count(unix.NFT_MSG_GETRULE); err != nil || n != 0 {
		t.Errorf("%d rules are left, %v", n, err)
	}
}

// Of what a process executes, memory and time are seen.
func TestChildren(t *testing.T) {
	following := followChildren(t.Context(), os.Getpid())
	before, err := processor.TimeOfAll(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// It computes for a while.
	if out, err := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	after, err := processor.TimeOfAll(os.Getpid())
	if most := following.stop(); most < 0.3*megabyte || most > 20*megabyte {
		t.Errorf("a shell takes %s MB", most)
	}
	if err != nil || after-before < 20*time.Millisecond {
		t.Errorf("a shell that counts takes %s, %v", after-before, err)
	}
}

// The pods of a balancer answer, at every endpoint.
func TestConnectionsToEndpoints(t *testing.T) {
	b := programs(t)
	one := &balancer{name: "nobody", program: "/nowhere/agent", supply: newSupply(3, 4), bench: b}
	defer func() {
		if err := one.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := one.place(); err != nil {
		t.Fatal(err)
	}
	var all []netip.AddrPort
	for i := range 3 {
		for j := range 4 {
			all = append(all, one.supply.endpoint(i, j))
		}
	}
	took, err := one.asker.ask(all)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range took {
		if d <= 0 {
			t.Errorf("a connection to %s took %s", all[i], d)
		}
	}
}
