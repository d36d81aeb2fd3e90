// Package bgp_test says what becomes of pods' and Services' networks among routers that
// nobody here wrote, BIRD and FRR: two racks with two routers each, and a machine outside.
//
//	rack a: n1, a1 (BIRD), a2 (FRR)   172.30.0.0/24, fd00:30::/64
//	rack b: n2, b1 (BIRD), b2 (FRR)   172.30.1.0/24, fd00:30:1::/64
//	spine:  a1, a2, b1, b2, world     172.31.0.0/24, fd00:31::/64
//
// Nodes are AS 64512, racks' routers AS 64601 and 64602. Every session is external, in both
// families.
package bgp_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) {
	for _, program := range []string{bird, frr + "bgpd"} {
		if _, err := os.Stat(program); err != nil {
			fmt.Fprintln(os.Stderr, "bgp: there are no routers to talk to: run `test/prepare.sh bgp` first, or `make bgp`:", err)
			os.Exit(1)
		}
	}
	cluster.Main(m)
}

// Where Debian has the routers' programs.
const (
	bird  = "/usr/sbin/bird"
	birdc = "/usr/sbin/birdc"
	vtysh = "/usr/bin/vtysh"
	frr   = "/usr/lib/frr/"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits for what has to happen.
func await(t testing.TB, what string, ask func() error) {
	t.Helper()
	took, err := pace.Await(pace.Far(), ask)
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
	t.Logf("%s after %s", what, took)
}
