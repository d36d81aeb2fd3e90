// Package bgp_test says what becomes of pods' and Services' networks among routers that
// nobody here wrote: package racks.
package bgp_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/racks"
)

func TestMain(m *testing.M) {
	for _, program := range []string{racks.BIRD, racks.BGPD} {
		if _, err := os.Stat(program); err != nil {
			fmt.Fprintln(os.Stderr, "bgp: there are no routers to talk to: run `test/prepare.sh bgp` first, or `make bgp`:", err)
			os.Exit(1)
		}
	}
	cluster.Main(m)
}

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
