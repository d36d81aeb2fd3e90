package page_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// press presses keys, one after the other.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// focused is what has the focus, as a screen reader names it, and whether that is seen.
func (b *browser) focused() string {
	b.t.Helper()
	return eval[string](b, `(() => {
		const e = document.activeElement, name = (e.ariaLabel || e.innerText || e.id || e.tagName).trim().replace(/\s+/g, " ");
		return e === document.body ? "nothing" : getComputedStyle(e).outlineStyle === "none" ? name + ", which is not seen" : name;
	})()`)
}

func (b *browser) hasFocus(want string) {
	b.t.Helper()
	if got := b.focused(); !strings.HasPrefix(got, want) || strings.Contains(got, "not seen") {
		b.t.Errorf("the focus is at %q, want %q", got, want)
	}
}

// Everything is reached without a mouse, and one sees where one is.
func TestKeyboard(t *testing.T) {
	s := newSimulated(3, 20)
	_, kubeconfig := newAPI(t, 3, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.press(kb.Tab)
	b.hasFocus("Skip to the content")
	b.press(kb.Tab)
	b.hasFocus("Overview")
	titles := []string{"Overview", "Nodes", "Health", "Pods", "Services", "Policies", "BGP", "Load balancers"}
	for i := range titles {
		want, view := titles[(i+1)%len(titles)], views[(i+1)%len(views)]
		b.press(kb.ArrowRight)
		b.await("view "+want, fmt.Sprintf("document.querySelector('.panel.%s') && location.hash === '#%[1]s'", view))
		b.hasFocus(want)
		if n := eval[int](b, `document.querySelectorAll('[role="tab"][tabindex="0"]').length`); n != 1 {
			t.Errorf("%d tabs are in the order of the Tab key", n)
		}
		if got := eval[string](b, `document.getElementById(document.querySelector('[role="tabpanel"]').getAttribute("aria-labelledby")).innerText`); !strings.HasPrefix(got, want) {
			t.Errorf("the panel is labelled %q", got)
		}
	}
	b.press(kb.End)
	b.hasFocus("Load balancers")
	b.press(kb.Home)
	b.hasFocus("Overview")
	b.press(kb.ArrowRight)
	b.await("nodes", `document.querySelector(".panel.nodes tbody button")`)

	// A table: the heads sort, arrow keys go from row to row, Enter opens details.
	b.press(kb.Tab)
	b.hasFocus("filter-Nodes")
	b.press(kb.Tab)
	b.hasFocus("Node")
	b.press(kb.Enter, kb.Enter)
	b.await("sorted the other way around", `document.querySelector('th[aria-sort="descending"]').innerText.startsWith("Node") && document.querySelector(".scroll tbody tr[data-at]").innerText.startsWith("n3") && location.hash === "#nodes?sort=-name"`)
	b.run(`document.querySelector("tbody button").focus()`)
	b.press(kb.ArrowDown)
	b.hasFocus("n2")
	b.press(kb.End)
	b.hasFocus("n1")
	b.press(kb.Enter)
	b.await("details", `document.activeElement.matches("#drawer h2")`)
	b.hasFocus("n1")
	b.reads("#drawer", "172.30.0.1")
	b.press(kb.Escape)
	b.await("no details", `document.querySelector("#drawer").hidden`)
	b.hasFocus("n1")

	// The matrix: arrow keys in both directions.
	b.view("health")
	b.await("the matrix", `document.querySelector(".grid button[data-i]")`)
	b.run(`document.querySelector('.grid button[tabindex="0"]').focus()`)
	b.press(kb.ArrowRight, kb.ArrowRight, kb.ArrowDown)
	b.hasFocus("n2 to n3: ok, vxlan")
	b.press(kb.Enter)
	b.reads("#drawer", "round trip")
	b.press(kb.Escape)
	b.hasFocus("n2 to n3")

	// What is filtered is in the address, so that a link shows the same.
	b.view("pods")
	b.await("pods", `document.querySelector(".scroll tbody tr[data-at]")`)
	b.run(`document.querySelector("#panel input").focus()`)
	b.press("s", "h", "o", "p", "/", "d", "b")
	b.await("the filter", `location.hash === "#pods?filter=shop%2Fdb" && document.querySelector(".shown").innerText.startsWith("6 of 50")`)
	b.do(chromedp.Reload())
	b.await("the same pods", `document.querySelector(".shown")?.innerText.startsWith("6 of 50") && document.querySelector("#panel input").value === "shop/db"`)
}
