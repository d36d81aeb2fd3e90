package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/report/demotest"
)

func TestFailureIsSaid(t *testing.T) {
	script := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name    string
		program string // that is replaced
		by      func(t *testing.T, path string)
		want    string // in the error
		shown   string // in the output
	}{
		{"no flatnetd", "flatnetd", func(*testing.T, string) {}, "node node1: starting ", ""},
		{"a flatnetd that ends", "flatnetd", script(`test "$1" = cleanup || { echo it hurts; exit 3; }`),
			"node node1: flatnetd has ended before it was ready: exit status 3", "    it hurts\n"},
		{"a plugin that fails", "flatnet", script(`echo '{"code": 7, "msg": "it hurts"}'; exit 1`),
			"node node1: ADD of pod web-1: ", "The last lines of flatnetd's log on node1:\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			demotest.LeavesNothing(t)
			directory := t.TempDir()
			for _, name := range []string{"flatnetd", "flatnet", "flatnet-ipam"} {
				path := filepath.Join(directory, name)
				if name == c.program {
					c.by(t, path)
				} else if err := os.Symlink(filepath.Join(demotest.Programs(t), name), path); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			err := run(t.Context(), &out, directory)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v lacks %q", err, c.want)
			}
			if !strings.Contains(out.String(), "Stopped by a failure: cleaning up\n") || !strings.Contains(out.String(), c.shown) {
				t.Errorf("the output lacks what went wrong:\n%s", &out)
			}
		})
	}
}

func TestPathsThatAreNotAsTheyShouldBe(t *testing.T) {
	lab := netlab.Start(t)
	c := cluster.New(lab, "")
	lan := lab.Segment("lan")
	a := nodeEnd(c.AddNode("a", lan.Port("172.30.0.1/24", "2001:db8::1/64")))
	b := nodeEnd(c.AddNode("b", lan.Port("172.30.0.2/24", "2001:db8::2/64")))
	if err := a.on.AddAddress("eth0", "172.30.0.9/24"); err != nil {
		t.Fatal(err)
	}
	if err := (ends{a, b}).listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ends{a, b}.close)
	translated := &end{name: "a", space: a.space, on: a.on, addresses: [2]netip.Addr{netip.MustParseAddr("172.30.0.9"), a.addresses[1]}}
	other := &end{name: "c", on: b.on, addresses: b.addresses}
	silent := &end{name: "d", on: b.on, addresses: [2]netip.Addr{netip.MustParseAddr("172.30.0.77"), b.addresses[1]}}
	for _, c := range []struct {
		from, to *end
		family   int
		want     string
	}{
		{a, b, 0, ""},
		{a, b, 1, ""},
		{translated, b, 0, "a to b (172.30.0.2): the receiver saw the source 172.30.0.1 instead of 172.30.0.9"},
		{a, other, 1, "a to c (2001:db8::2): b has answered"},
		{a, silent, 0, "a to d (172.30.0.77): "},
	} {
		p := path{from: c.from, to: c.to, family: c.family, source: c.from.sourceAt(c.to, c.family)}
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
	nodes := []*cluster.Node{{Name: "node1"}, {Name: "node2"}}
	if err := nothing(nodes, []remains{{}, {}}); err != nil {
		t.Error(err)
	}
	err := nothing(nodes, []remains{{}, {routes: 1}})
	if !errors.Is(err, errLeft) || !strings.Contains(err.Error(), "node2") {
		t.Errorf("a route on node2: %v", err)
	}
}
