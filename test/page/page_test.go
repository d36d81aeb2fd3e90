// Package page_test looks at the page with a browser: that it shows what the cluster is.
package page_test

import (
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func newSimulated(nodes, pods int) *simulated {
	return &simulated{nodes: nodes, pods: pods, across: "vxlan", began: time.Now().Add(-26 * time.Hour), silent: map[string]bool{}, ways: map[string]string{}}
}
