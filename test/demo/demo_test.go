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

// leavesNothing demands that a test leaves no namespace and no file.
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
		`    node3   172\.30\.1\.3   fd00:30:1::3   10\.244\.3\.0/24   fd00:244:3::/64\n`,
		`    node1   [0-9.]+ ms +bin/flatnet, bin/flatnet-ipam, net\.d/10-flatnet\.conflist\n`,
		`    node node1: ready `,
		`    node2  fd00:244:2::/64  direct  fd00:30::2  eth0        present  `,
		`    node3  10\.244\.3\.0/24    vxlan   172\.30\.1\.3  flatnet\.vx  present  `,
		`    no problems\n`,
		`    web-1   node1   10\.244\.1\.2   fd00:244:1::2   veth[0-9a-f]{11}   1450   [0-9.]+ ms\n`,
		`    db-3    node3   10\.244\.3\.3   fd00:244:3::3   veth`,
		`    same node   12 of 12   [0-9]+ µs\n    direct      16 of 16   [0-9]+ µs\n    vxlan       32 of 32   `,
		`Those at db-3:\n\n    10\.244\.1\.2 10\.244\.1\.3 10\.244\.2\.2 10\.244\.2\.3 10\.244\.3\.2\n` +
			`    fd00:244:1::2 fd00:244:1::3 fd00:244:2::2 fd00:244:2::3 fd00:244:3::2\n`,
		`60 of 60 paths: every receiver saw the sender's own address, so none was translated\.\n`,
		`    node   pod \(same node, direct\)   20 of 20   the node's address   `,
		`    node   pod \(vxlan\)               16 of 16   the node's address on the overlay   `,
		`    pod    node                      36 of 36   the pod's own address   `,
		`    pod    outside                   12 of 12   the address of the pod's node   `,
		`    172\.30\.0\.1 172\.30\.0\.2 172\.30\.1\.3\n    fd00:30::1 fd00:30::2 fd00:30:1::3\n`,
		`    web-1   web-2   direct   IPv4   ([0-9]{3,}) +[0-9]+ +0\n`,
		`    web-1   web-3   vxlan    IPv6   ([0-9]{3,}) +[0-9]+ +0\n`,
		`the pod late-1 was attached \([0-9.]+ ms\)`,
		`finds no difference in 6 of 6 pods`,
		`DEL has detached 6 of 6 pods`,
		`    removed .*/10-flatnet\.conflist\n`,
		// The third table is the hold on translated connections, from Linux 5.12 on.
		`    node1   with pods   3            19       2       [23]            [0-9]+\n` +
			`            now         0            0        0       0            0\n`,
		`- nothing left\n`,
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
		{"1. Nodes", 0},
		{"1. Nodes", 50 * time.Millisecond},    // one flatnetd runs
		{"2. flatnetd", 20 * time.Millisecond}, // some pods are there
		{"3. Pods", time.Millisecond},
		{"5. Nodes", 0},
		{"5. Nodes", 100 * time.Millisecond}, // pings run
		{"5. Nodes", 220 * time.Millisecond}, // flatnetd has been killed
		{"7. Pods", 0},
		{"7. Pods", 50 * time.Millisecond}, // some nodes are clean
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
			// Where the machine is faster than the interruption, the run is complete.
			end := "Nothing is left.\n\n"
			if err == nil {
				end = "- nothing left\n\n"
			}
			if err != nil && err != context.Canceled || !strings.HasSuffix(out.String(), end) {
				t.Errorf("interrupted: %v\n%s", err, out)
			}
		})
	}
}
