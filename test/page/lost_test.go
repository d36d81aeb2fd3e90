package page_test

import (
	"os/exec"
	"testing"
)

// Packets that a router drops between two nodes are seen on the page, with what to do, and
// that they get through again.
func TestRouterThatDrops(t *testing.T) {
	s := newSite(t)
	b := open(t, ui(t, s.kubeconfig, quickly...), 1280, 900)
	b.view("health")
	b.reads(".summary", "All 6 paths are fine")
	nft := func(command string) {
		t.Helper()
		must(t, s.router.Run(exec.Command("nft", command)))
	}
	nft("table inet cut { chain forward { type filter hook forward priority 0; udp dport 4789 drop; }; }")
	b.reads(".summary", "4 of 6 paths have a problem")
	b.await("lost ones", `document.querySelectorAll(".grid td.bad button").length === 4`)
	b.view("overview")
	b.reads(".finding", "4789")
	b.await("dashed lines", `document.querySelectorAll(".bad-way").length === 4`)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.picture("page-lost-" + scheme)
	}
	nft("delete table inet cut")
	b.reads("#headline", "3 nodes, all well")
	b.await("no dashed line", `document.querySelectorAll(".bad-way").length === 0`)
}
