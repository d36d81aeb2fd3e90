package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// measured is how long an input took until what it changed was painted.
type measured struct {
	Name     string
	Duration float64 // in milliseconds, by steps of eight
	Work     float64 // of the page itself
}

// observe notes inputs from now on. What takes less than 16 ms the browser does not tell.
const observe = `window.inputs = []; new PerformanceObserver((list) => {
	for (const e of list.getEntries()) inputs.push({ Name: e.name, Duration: e.duration, Work: e.processingEnd - e.processingStart });
}).observe({ type: "event", durationThreshold: 16 });
window.tasks = []; new PerformanceObserver((list) => { for (const e of list.getEntries()) tasks.push(e.duration); }).observe({ type: "longtask" })`

// painted waits until what the last input has changed is on the screen.
const painted = `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true), 0))))`

// 300 nodes with 100 pods each: everything is there, and how long inputs take is printed.
func TestLargeCluster(t *testing.T) {
	s := newSimulated(300, 120)
	s.silent["n41"] = true
	s.ways["n7 n200"] = "lost"
	pods := 0
	for i := 1; i <= s.nodes; i++ {
		if name(i) != "n41" {
			pods += s.podsOf(i)
		}
	}
	_, kubeconfig := newAPI(t, s.nodes, s.execute)
	b := open(t, ui(t, kubeconfig), 1280, 800)
	b.reads("#headline", "3 of 300 nodes are not well: n41 (no answer), n3 (1 problem), n7 (1 problem)")
	b.run(observe)
	var all []measured
	step := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		b.run("window.inputs.length = 0")
		b.do(actions...)
		eval[bool](b, painted)
		// The browser tells of inputs when it has nothing else to do.
		took := eval[[]measured](b, `new Promise((done) => setTimeout(() => done(inputs), 60))`)
		worst := measured{Name: what}
		for _, m := range took {
			worst.Duration, worst.Work = max(worst.Duration, m.Duration), max(worst.Work, m.Work)
		}
		all = append(all, worst)
	}
	click := func(selector string) chromedp.Action[chromedp.Void] { return chromedp.Click(chromedp.CSS(selector)) }

	step("open a node from the overview", click(".square.bad"))
	step("close it", chromedp.KeyEvent(kb.Escape))
	step("to the nodes", click("#tab-nodes"))
	b.await("the picture", `document.querySelectorAll(".joined-picture .dot").length === 300`)
	step("sort nodes", click(".scroll thead th:nth-child(4) button"))
	step("filter nodes", click("#panel input"), chromedp.KeyEvent("n1"))
	step("to the health", click("#tab-health"))
	b.await("the matrix", `document.querySelector(".field canvas")?.width > 300 && document.querySelector(".summary").innerText.includes("1 of 89,700 paths has a problem")`)
	b.namesOf("health of many nodes")
	step("choose a way", chromedp.MouseClickXY(900, 500))
	b.await("details of the way", `document.activeElement.matches("#drawer h2")`)
	b.reads(".cell-says", " to n")
	step("close it", chromedp.KeyEvent(kb.Escape))
	b.await("the matrix has the focus", `document.activeElement.matches("canvas")`)
	before := b.text(".cell-says")
	step("move in the matrix", chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.ArrowRight))
	if after := b.text(".cell-says"); after == before {
		t.Errorf("the arrow keys lead from %q to %q", before, after)
	}
	b.run(`document.querySelector("canvas").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", shiftKey: true }))`)
	b.reads(".cell-says", "n7 to n200: lost")
	step("to the pods", click("#tab-pods"))
	b.await("all pods", fmt.Sprintf(`document.querySelector(".shown").innerText.replace(",", "") === "%d pods"`, pods))
	if n := eval[int](b, `document.querySelectorAll(".scroll tbody tr").length`); n > 100 {
		t.Errorf("%d rows are elements", n)
	}
	step("filter pods, first letter", click("#panel input"), chromedp.KeyEvent("w"))
	step("filter pods, second letter", chromedp.KeyEvent("e"))
	step("filter pods, third letter", chromedp.KeyEvent("b"))
	b.await("some pods", `/^[\d,]+ of /.test(document.querySelector(".shown").innerText)`)
	step("no filter", chromedp.KeyEvent(kb.Backspace), chromedp.KeyEvent(kb.Backspace), chromedp.KeyEvent(kb.Backspace))
	step("sort pods by name", click(".scroll thead th:nth-child(1) button"))
	step("the other way around", click(".scroll thead th:nth-child(1) button"))
	step("sort pods by address", click(".scroll thead th:nth-child(3) button"))
	step("open a pod", click(".scroll tbody button"))
	step("close it", chromedp.KeyEvent(kb.Escape))
	step("to the last pod", chromedp.KeyEvent(kb.End))
	b.await("the last pod", fmt.Sprintf(`document.activeElement.closest("tr")?.ariaRowIndex === "%d" || document.activeElement.closest("tr")?.getAttribute("aria-rowindex") === "%d"`, pods+1, pods+1))
	step("up", chromedp.KeyEvent(kb.ArrowUp))
	step("to the Services", click("#tab-services"))
	step("to the policies", click("#tab-policies"))
	b.await("policies of a node", `document.querySelector(".scroll tbody tr[data-at]")`)
	step("to BGP", click("#tab-bgp"))
	b.await("sessions of nearly all nodes, of which some may not have answered this time", `parseInt(document.querySelector(".shown").innerText) > 560 && document.querySelector(".shown").innerText.endsWith(" sessions")`)
	step("sort sessions", click(".scroll thead th:nth-child(2) button"))
	step("filter sessions", click("#panel input"), chromedp.KeyEvent("r"))
	step("open a session", click(".scroll tbody button"))
	step("close it", chromedp.KeyEvent(kb.Escape))
	step("to load balancers", click("#tab-balancers"))
	b.await("addresses", `document.querySelector(".scroll tbody tr[data-at]")`)
	step("open an address", click(".scroll tbody button"))

	if !slices.ContainsFunc(all, func(m measured) bool { return m.Duration > 0 }) {
		t.Error("no input was measured")
	}
	var lines []string
	for _, m := range all {
		lines = append(lines, fmt.Sprintf("%4.0f ms, %4.0f of them the page's own: %s", max(m.Duration, 16), m.Work, m.Name))
	}
	longest := eval[float64](b, `Math.max(0, ...tasks)`)
	t.Logf("the longest that the page did anything by itself: %.0f ms", longest)
	t.Logf("from an input to the paint, %d nodes and %d pods:\n%s", s.nodes, pods, strings.Join(lines, "\n"))
}
