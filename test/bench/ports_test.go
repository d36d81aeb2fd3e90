package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestHostPorts(t *testing.T) {
	b := network(t)
	b.before = b.ours
	found, err := measurePorts(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprint(found)
	for _, want := range []string{"| flatnet, 2 ports ", "another pod has some ", "| flatnet of -before ", "| 1 port on the node ", "| 6 ports on the node ", "≤ 2 µs"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
}

func TestVerdictsOnPorts(t *testing.T) {
	found := timings{
		{name: portless, add: sample{100}}, {name: twoPorts, add: sample{115}}, {name: besides, add: sample{116}}, {name: peersPort, add: sample{1000}},
	}
	connections := []*portConnections{
		{of: portsOfNode{1, 1}, excess: sample{2 * time.Microsecond}}, {of: portsOfNode{10, 100}, excess: sample{2100 * time.Nanosecond}},
	}
	var got strings.Builder
	for _, r := range append(addedRatios(found), portsRatios(connections)...) {
		fmt.Fprintln(&got, strings.TrimSpace(strings.Join(r.row(), " | ")))
	}
	for _, want := range []string{
		"the first on the node | 1.15 | ≤ 1.15 | yes", "another pod has some | 1.16 | ≤ 1.15 | no", "with 2 ports | 0.12 | ≤ 0.15 | yes",
		"an older one (-before) | not measured | ≤ 1.02", "1 port on the node | 2.00 µs | ≤ 2 µs | yes", "1,000 ports on the node | 2.10 µs | ≤ 2 µs | no",
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("%q is not in\n%s", want, got.String())
		}
	}
}
