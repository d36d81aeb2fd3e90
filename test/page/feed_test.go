package page_test

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// asksTwice has a feed ask when it has just asked, and returns how many times it is going to
// ask next. The browser's timers and its network are not asked.
const asksTwice = `(async () => {
	const { Feed } = await import("./data.js");
	const { fetch, setTimeout, clearTimeout } = window;
	const waiting = new Set();
	let timers = 0, asked = 0;
	window.fetch = async () => { asked++; return new Response("{}"); };
	window.setTimeout = (run) => { waiting.add(++timers); return timers; };
	window.clearTimeout = (timer) => waiting.delete(timer);
	try {
		const feed = new Feed("nothing", { changed() {} });
		feed.stopped = false;
		await feed.ask();
		await feed.ask();
		const next = waiting.size;
		feed.stop();
		return [asked, next, waiting.size];
	} finally {
		Object.assign(window, { fetch, setTimeout, clearTimeout });
	}
})()`

// A view that has its feed ask at once, since other nodes answer now, does not ask twice as
// often from then on.
func TestAsksAtOnceAndNotTwiceAsOften(t *testing.T) {
	s := newSimulated(1, 4)
	_, kubeconfig := newAPI(t, 1, s.execute)
	b := open(t, ui(t, kubeconfig, quickly...), 800, 600)
	// Of the page's own files one that does nothing: there no other feed takes part.
	b.expect("favicon.ico") // for which the browser asks where a document names no icon
	b.do(chromedp.Navigate(eval[string](b, `new URL("data.js", location.href).href`)))
	if got := eval[[3]int](b, asksTwice); got != [3]int{2, 1, 0} {
		t.Errorf("it has asked %d times, and is going to ask %d times, %d times once it is stopped; want 2, 1, 0", got[0], got[1], got[2])
	}
}
