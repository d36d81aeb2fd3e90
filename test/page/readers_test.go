package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// views are all of them, by the names in the address.
var views = []string{"overview", "nodes", "health", "pods", "services", "policies", "bgp", "balancers"}

// named are roles that a screen reader reads by their names.
var named = []string{"button", "tab", "tablist", "tabpanel", "searchbox", "combobox", "link", "image", "img", "table", "heading", "region", "navigation", "columnheader", "rowheader", "application", "complementary"}

// contrast lists texts that are less than 4.5 to 1 apart from what is behind them.
const contrast = `(() => {
	const rgb = (text) => {
		const m = /rgba?\(([^)]+)\)/.exec(text);
		const [r, g, b, a = 1] = m[1].split(/[,/ ]+/).filter(Boolean).map(Number);
		return { r, g, b, a };
	};
	const light = ({ r, g, b }) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c.a === 1) return c;
		}
		return { r: 255, g: 255, b: 255 };
	};
	const bad = new Set();
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("svg, noscript, .skip, .hidden")) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) bad.add(ratio.toFixed(2) + " " + e.className + ": " + walker.currentNode.data.trim().slice(0, 30));
	}
	return [...bad];
})()`

// In both schemes of colours, each view is readable, and has a name for what a screen
// reader stops at.
func TestReaders(t *testing.T) {
	s := newSimulated(12, 20)
	s.silent["n5"] = true
	s.ways["n1 n12"], s.ways["n2 n3"] = "lost", "lossy"
	_, kubeconfig := newAPI(t, 12, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, v := range views {
			b.view(v)
			b.await("something in view "+v, `document.querySelector("#panel .scroll tbody tr[data-at], #panel .grid, #panel .finding")`)
			if bad := eval[[]string](b, contrast); len(bad) > 0 {
				t.Errorf("%s, %s: too little contrast:\n%s", v, scheme, strings.Join(bad, "\n"))
			}
			if v != "health" && v != "services" && v != "policies" {
				b.run(`document.querySelector(".square, .scroll tbody button").click()`)
				b.await("details", `document.querySelector("#drawer h2")`)
			}
			if v == "pods" {
				b.reads("#drawer", "Bytes out / in")
			}
			b.namesOf(v)
		}
	}
	if a, d := eval[string](b, "getComputedStyle(document.body).backgroundColor"), "rgb(14, 19, 27)"; a != d {
		t.Errorf("the ground is %s in the dark", a)
	}
	for selector, want := range map[string]string{"html": "en", "main": "", "header h1": "", "nav [role=tablist]": "", `[role="status"][aria-live="polite"]`: ""} {
		if !eval[bool](b, fmt.Sprintf("document.querySelectorAll(%s).length > 0 && document.documentElement.lang.includes(%s)", quoted(selector), quoted(want))) {
			t.Errorf("there is no %s", selector)
		}
	}
}

// namesOf looks for what has a role and no name.
func (b *browser) namesOf(view string) {
	b.t.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	roles := map[string]int{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role := strings.Trim(string(n.Role.Value), `"`)
		roles[role]++
		if slices.Contains(named, role) && (n.Name == nil || strings.Trim(string(n.Name.Value), `" `) == "") {
			b.t.Errorf("%s: a %s has no name: %+v", view, role, n)
		}
	}
	if roles["tab"] != len(views) || roles["button"] < 2 || roles["heading"] < 1 || roles["main"] != 1 || roles["banner"] != 1 || roles["navigation"] != 1 {
		b.t.Errorf("%s: roles are %v", view, roles)
	}
}

// What others have named is text, whatever it looks like.
func TestNamesAreText(t *testing.T) {
	s := newSimulated(3, 20)
	const evil = `shop/<img src=x onerror=alert(1)><script>document.title="evil"</script>`
	s.evil = evil
	_, kubeconfig := newAPI(t, 3, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 1280, 800)
	b.reads(".finding", "<img src=x")
	for _, v := range views {
		b.view(v)
		b.await("something in view "+v, `document.querySelector("#panel .scroll tbody tr, #panel .grid, #panel .finding")`)
	}
	b.view("pods")
	b.reads("tbody", evil)
	b.run(`document.querySelector(".scroll tbody button").click()`)
	b.reads("#drawer", evil)
	b.reads("#drawer", "on "+evil)
	const markup = `document.querySelector("#panel img, #drawer img, #panel script, #drawer script") || document.title.includes("evil")`
	for _, v := range []string{"bgp", "balancers"} {
		b.view(v)
		b.reads("tbody", evil)
		b.run(`document.querySelector(".scroll tbody button").click()`)
		b.reads("#drawer", evil)
		if eval[bool](b, markup) {
			t.Errorf("view %s reads a name as markup", v)
		}
	}
	if eval[bool](b, markup) {
		t.Error("a name was read as markup")
	}
}

// The page may load nothing from elsewhere, and run nothing that is not its own.
func TestPolicyIsInForce(t *testing.T) {
	s := newSimulated(1, 4)
	_, kubeconfig := newAPI(t, 1, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 800, 600)
	b.expect("Content Security Policy")
	b.expect("Executing inline")
	b.expect("Loading")
	b.expect("Connecting")
	b.expect("violates")
	if eval[bool](b, `(async () => {
		try { await fetch("http://127.0.0.1:9/"); return true; } catch {}
		const script = document.createElement("script");
		script.textContent = "window.evil = true";
		document.body.append(script);
		return Boolean(window.evil);
	})()`) {
		t.Error("something else than the page's own runs, or is loaded")
	}
}
