package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// programs is the directory of what is demonstrated.
func programs(t *testing.T) string {
	t.Helper()
	directory, err := binaries.BuildForTest() // cluster.Main has
	if err != nil {
		t.Fatal(err)
	}
	return directory
}

// leavesNothing demands that a test leaves no namespace, no file and no program.
func leavesNothing(t *testing.T) {
	t.Helper()
	count := func() string {
		namespaces, _ := os.ReadDir("/run/netns")
		clusters, _ := os.ReadDir("/run/cluster")
		return fmt.Sprintf("%d namespaces, %d clusters", len(namespaces), len(clusters))
	}
	before := count()
	t.Cleanup(func() {
		if after := count(); after != before {
			t.Errorf("%s before, %s after", before, after)
		}
	})
}

func TestDemoShowsWhatItPromises(t *testing.T) {
	leavesNothing(t)
	var out strings.Builder
	if err := run(t.Context(), &out, programs(t)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		`    a1\$ birdc show route table master4\n`,
		`    10\.244\.1\.0/24 +unicast \[node4 `,
		`    a2\$ vtysh -c "show bgp ipv4"\n`,
		`    n1\$ ip route show proto 70\n`,
		`    \tnexthop via 172\.30\.0\.251 dev eth0 weight 1\n    \tnexthop via 172\.30\.0\.252 dev eth0 weight 1\n`,
		`    n1\$ flatnetd status bgp\n    AS 64512, router id 172\.30\.0\.1\n`,
		`    a1v6 +fd00:30::251 +64601 +established `,
		`    web-1   web-5   IPv4   \S+ → a[12] → b[12] → n2 → web-5\n`,
		`    web-1   web-6   IPv6   \S+ → a[12] → b[12] → n2 → web-6\n`,
		`    world   web-1   10\.244\.1\.2 +172\.31\.0\.9 +a[12] → n1 → web-1\n`,
		`and the pod sees 172\.31\.0\.9\.\n`,
		`    b2\$ vtysh -c "show bgp ipv4 unicast 198\.51\.100\.1/32"\n`,
		`\d+ +32 +\d+ +\d+\.\d s +\d+\.\d s\n`,
		`    10\.244\.2\.0/24 via 172\.30\.0\.252 dev eth0 src 172\.30\.0\.1 ?\n`,
		`    sent +lost\n    \d{4,} +[012]\n`,
		`    removed announcements to a1\n`,
		`- 64 of 64 paths between pods of different racks`,
		`- nothing left, on nodes and in routers' tables\n`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
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
		at    string // what has been written last
		after time.Duration
	}{
		{"1. Two racks", 0},
		{"1. Two racks", 100 * time.Millisecond}, // routers run
		{"2. What is told", 0},
		{"2. What is told", 100 * time.Millisecond}, // pods are there
		{"4. A machine", 200 * time.Millisecond},    // a router is dead
	} {
		t.Run(fmt.Sprintf("%s %v", c.at, c.after), func(t *testing.T) {
			leavesNothing(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &watch{text: c.at, then: func() {
				if c.after == 0 {
					cancel()
				} else {
					time.AfterFunc(c.after, cancel)
				}
			}}
			err := run(ctx, out, programs(t))
			if err != context.Canceled || !strings.HasSuffix(out.String(), "Nothing is left.\n\n") {
				t.Errorf("interrupted: %v\n%s", err, out)
			}
		})
	}
}
