// Package loadbalancer_test has Services of type LoadBalancer given addresses, and hosts
// of the segment reach them: nodes, pods, the API server and the client are network
// namespaces, and it is the client's own kernel that asks who has an address.
package loadbalancer_test

import (
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
