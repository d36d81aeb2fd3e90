package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// pluginsVariable names a directory with the plugin to demonstrate; by default
// it is built for the test.
const pluginsVariable = "FLATNET_DEMO_PLUGINS"

func TestMain(m *testing.M) {
	// Building may need the network, so it comes before the namespaces.
	if os.Getenv(pluginsVariable) == "" {
		directory, err := binaries.Build()
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(1)
		}
		os.Setenv(pluginsVariable, directory)
	}
	netlab.Main(m)
}

// alone gives a run a machine on which none has been before, since addresses
// that are free again are used last. It demands that no namespace is left.
func alone(t *testing.T) {
	t.Helper()
	namespaces := func() int { entries, _ := os.ReadDir("/run/netns"); return len(entries) }
	before := namespaces()
	if err := os.RemoveAll(stateRoot); err != nil { // on the tmpfs of netlab.Enter
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if after := namespaces(); after != before {
			t.Errorf("%d namespaces before, %d after", before, after)
		}
	})
}

func TestDemoShowsWhatItPromises(t *testing.T) {
	alone(t)
	var out strings.Builder
	if err := run(t.Context(), &out, os.Getenv(pluginsVariable)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"    web-1   node1   10.244.1.2   fd00:244:1::2   veth",
		"    db-3    node3   10.244.3.3   fd00:244:3::3   veth",
		"    web-1      10.244.1.3 10.244.2.2 10.244.2.3 10.244.3.2 10.244.3.3\n" +
			"               fd00:244:1::3 fd00:244:2::2 fd00:244:2::3 fd00:244:3::2 fd00:244:3::3\n",
		"60 of 60 paths: every receiver saw the sender's own address, so none was translated.\n",
		"    every node   every pod     36 of 36   the node's own address",
		"    every pod    every node    36 of 36   the pod's own address",
		"    every pod    its gateway   12 of 12 ",
		"finds no difference in 6 of 6 pods",
		"has detached 6 of 6 pods",
		"    node1   with pods   2            13       2            4                    2\n" +
			"            now         0            0        0            0                    0\n",
		" s: 60 of 60 paths without NAT; 6 pods attached, checked and detached; nothing left.\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if columns := utf8.RuneCountInString(line); columns > 100 || strings.HasSuffix(line, " ") {
			t.Errorf("%d columns, or spaces at the end: %q", columns, line)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// watch is a buffer that calls a function when a text has been written to it.
type watch struct {
	strings.Builder
	text string
	then func()
}

func (w *watch) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.then()
	}
	return w.Builder.Write(p)
}

func TestInterruptionLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		at    string
		after time.Duration
	}{
		{"1. Nodes", 0},
		{"2. Routes", 0},
		{"2. Routes", 2 * time.Millisecond},
		{"2. Routes", 10 * time.Millisecond},
		{"2. Routes", 20 * time.Millisecond},
		{"2. Routes", 30 * time.Millisecond},
		{"3. Pods", 0},
		{"3. Pods", time.Millisecond},
		{"5. Nodes", 2 * time.Millisecond},
		{"6. Pods", 0},
		{"6. Pods", 10 * time.Millisecond},
		{"6. Pods", 50 * time.Millisecond},
		{"7. Pods", 0},
	} {
		t.Run(fmt.Sprintf("%s %v", c.at, c.after), func(t *testing.T) {
			alone(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &watch{text: c.at, then: func() {
				if c.after == 0 {
					cancel()
				} else {
					time.AfterFunc(c.after, cancel)
				}
			}}
			err := run(ctx, out, os.Getenv(pluginsVariable))
			// Where the machine is faster than the interruption, the run is complete.
			end := "Nothing is left.\n\n"
			if err == nil {
				end = "; nothing left.\n\n"
			}
			if err != nil && err != context.Canceled || !strings.HasSuffix(out.String(), end) {
				t.Errorf("interrupted: %v\n%s", err, out)
			}
		})
	}
}

func TestFailureIsSaid(t *testing.T) {
	alone(t)
	var out strings.Builder
	err := run(t.Context(), &out, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "ADD of web-1 on node1: ") || !strings.Contains(err.Error(), pluginName) {
		t.Errorf("without a plugin: %v", err)
	}
	if !strings.Contains(out.String(), "Stopped by a failure: cleaning up\n") {
		t.Errorf("without a plugin:\n%s", &out)
	}
}

func TestPathsThatAreNotAsTheyShouldBe(t *testing.T) {
	lab := netlab.Start(t)
	lan := lab.Segment("lan")
	space := [2]*netlab.Namespace{
		lab.Node("a", lan.Port("192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64")).Namespace,
		lab.Node("b", lan.Port("192.0.2.2/24", "2001:db8::2/64")).Namespace,
	}
	at := func(name string, i int, v4, v6 string) *end {
		addresses := [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
		e, err := open(name, space[i], addresses)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.close)
		return e
	}
	a, b := at("a", 0, "192.0.2.1", "2001:db8::1"), at("b", 1, "192.0.2.2", "2001:db8::2")
	translated := &end{name: "a", space: space[0], addresses: [2]netip.Addr{netip.MustParseAddr("192.0.2.9"), a.addresses[1]}}
	other := &end{name: "c", addresses: b.addresses}
	silent := &end{name: "d", addresses: [2]netip.Addr{netip.MustParseAddr("192.0.2.77"), b.addresses[1]}}
	for _, c := range []struct {
		from, to *end
		family   int
		want     string
	}{
		{a, b, 0, ""},
		{a, b, 1, ""},
		{translated, b, 0, "a to b (192.0.2.2): the receiver saw the source 192.0.2.1 instead of 192.0.2.9"},
		{a, other, 1, "a to c (2001:db8::2): b has answered"},
		{a, silent, 0, "a to d (192.0.2.77): "},
	} {
		p := path{from: c.from, to: c.to, family: c.family}
		patience := answerPatience
		if c.to == silent {
			patience = again
		}
		p.try(t.Context(), patience)
		if got := fmt.Sprint(p.err); c.want == "" && p.err != nil || c.want != "" && !strings.HasPrefix(got, c.want) {
			t.Errorf("%s to %s: %s, want %q", c.from.name, c.to.name, got, c.want)
		}
	}
	if err := onlyOthers([]*end{a, b}); err == nil {
		t.Error("a has been sent nothing, and is said to have seen b")
	}
	if _, err := tryAll(t.Context(), []*end{translated}, []*end{b}); err == nil || !strings.HasPrefix(err.Error(), "1 of 2 paths failed: ") {
		t.Errorf("of two paths, one of them translated: %v", err)
	}
}

func TestWhatIsLeftIsSeen(t *testing.T) {
	nodes := []*node{{name: "node1"}, {name: "node2"}}
	if err := nothing(nodes, []remains{{}, {}}); err != nil {
		t.Error(err)
	}
	err := nothing(nodes, []remains{{}, {routes: 1}})
	if !errors.Is(err, errLeft) || !strings.Contains(err.Error(), "node2") {
		t.Errorf("a route on node2: %v", err)
	}
}
