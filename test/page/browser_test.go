package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// browser is a page that Chromium has open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	wrong []string // what the console says
	// expected is what a test brings about on purpose.
	expected []string
}

// open starts Chromium and opens an address. The test fails when the console says that
// something is wrong: an exception, something that the policy of the page refuses.
func open(t *testing.T, address string, width, height int64) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("no-proxy-server", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx}
	console, read := chromedp.Console(ctx), make(chan struct{})
	go func() {
		defer close(read)
		for m, err := range console {
			if err != nil {
				return // the browser has ended
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				b.note(m.String() + " " + m.URL)
			}
		}
	}()
	t.Cleanup(func() {
		end()
		<-read
		for _, w := range b.wrong {
			t.Errorf("the console says: %s", w)
		}
	})
	// The first one starts the browser, which ends when its context does.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height)); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	b.do(chromedp.Navigate(address))
	// The first document leads to the second.
	_, err := pace.Await(pace.Far(), func() error {
		there, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean(document.querySelector('#panel.overview') && document.querySelector('#of').textContent)"))
		if err == nil && !there {
			err = fmt.Errorf("the page does not show what it is of")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.expected {
		if strings.Contains(text, e) {
			return
		}
	}
	b.wrong = append(b.wrong, text)
}

// expect has it not count what the console says with these words.
func (b *browser) expect(words string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, words)
}

// do does something in the browser.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, pace.Far())
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
}

// get is what an action finds.
func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, pace.Far())
	defer stop()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// eval is the value of an expression, and of a promise what it promises.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// text is what is read in an element, or "".
func (b *browser) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("document.querySelector(%s)?.innerText ?? ''", quoted(selector)))
}

// quoted is a text as JavaScript has it.
func quoted(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// await waits until an expression is true.
func (b *browser) await(what, expression string) {
	b.t.Helper()
	_, err := pace.Await(pace.Far(), func() error {
		if eval[bool](b, "Boolean("+expression+")") {
			return nil
		}
		return fmt.Errorf("%s: %s is not so; the page says %q", what, expression, b.text("body"))
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// reads waits until an element says something.
func (b *browser) reads(selector, words string) {
	b.t.Helper()
	b.await(fmt.Sprintf("%s says %q", selector, words), fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", quoted(selector), quoted(words)))
}

// view opens a view by its tab.
func (b *browser) view(name string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("#tab-" + name)))
	b.await("view "+name, fmt.Sprintf("document.querySelector('.panel.%s')", name))
}

// scheme is "light" or "dark".
func (b *browser) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	if err != nil {
		b.t.Fatalf("choosing colours: %v", err)
	}
}

// run runs a statement in the page.
func (b *browser) run(statement string) {
	b.t.Helper()
	eval[bool](b, "(() => { "+statement+"; return true; })()")
}
