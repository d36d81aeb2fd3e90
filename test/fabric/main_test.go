// Package fabric_test says how nodes that run flatnetd behave, each statement with the real
// kernel: nodes and pods are network namespaces, flatnetd and the plugin are the
// programs that users run.
package fabric_test

import (
	"flag"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) {
	// Tests spend most of their time waiting for the kernel.
	flag.Set("test.parallel", "6")
	cluster.Main(m)
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get fails the test on an error.
func get[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return value
	}
}

// await asks until there is no error, and fails with the last one after a long
// time. It returns how long it took.
func await(t *testing.T, what string, ask func() error) time.Duration {
	t.Helper()
	took, err := pace.Await(pace.Far(), ask)
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
	return took
}
