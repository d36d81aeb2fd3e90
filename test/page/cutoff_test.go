package page_test

import "testing"

// What no longer gets through is seen without anybody asking, wherever one looks, and so is
// that it gets through again.
func TestCutOff(t *testing.T) {
	s := newSimulated(3, 20)
	_, kubeconfig := newAPI(t, 3, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.reads("#headline", "3 nodes, all well")
	cut := func() { s.set(func() { s.ways["n1 n3"], s.ways["n3 n1"], s.ways["n2 n1"] = "lost", "lost", "lossy" }) }
	mend := func() { s.set(func() { clear(s.ways) }) }

	cut()
	b.reads("#headline", "2 of 3 nodes are not well: n1 (1 problem), n3 (1 problem)")
	b.reads(".finding", "nothing comes back")
	b.await("dashed lines", `document.querySelectorAll(".bad-way").length === 3`)
	mend()
	b.reads("#headline", "3 nodes, all well")
	b.await("no dashed line", `document.querySelectorAll(".bad-way").length === 0 && document.querySelectorAll(".finding:not(.note)").length === 0`)

	b.view("health")
	b.reads(".summary", "All 6 paths are fine")
	cut()
	b.reads(".summary", "3 of 6 paths have a problem")
	b.awaitRows("health", "n1 | n3 | lost | vxlan | 20 of 20 lost", "n3 | n1 | lost", "n2 | n1 | lossy | direct | 3 of 20 lost")
	b.await("a sign in its cell", `[...document.querySelectorAll(".grid td.bad button")].map((cell) => cell.innerText[0] + cell.ariaLabel).join() === "✕n1 to n3: lost, vxlan, 20 of 20 lost,✕n3 to n1: lost, vxlan, 20 of 20 lost"`)
	// The details of what is looked at change as well.
	b.run(`document.querySelector(".grid td.bad button").click()`)
	b.reads("#drawer", "no probe is answered")
	mend()
	b.reads("#drawer", "probes are answered")
	b.reads(".summary", "All 6 paths are fine")
}
