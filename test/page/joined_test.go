package page_test

import "testing"

// Nodes that reach each other by what routers tell of need no tunnel: they share a box.
func TestNodesJoinedByBGP(t *testing.T) {
	s := newSimulated(4, 1)
	s.across = "bgp"
	_, kubeconfig := newAPI(t, 4, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.reads(".joined-picture", "4 nodes, plain routes")
}
