// Package service_test says what becomes of connections to Services, each
// statement with the real kernel: nodes, pods and a client outside of the
// cluster are network namespaces, and the addresses are what the receivers see.
package service_test

import (
	"flag"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

func TestMain(m *testing.M) {
	// Tests spend most of their time waiting for the kernel.
	flag.Set("test.parallel", "4")
	cluster.Main(m)
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
