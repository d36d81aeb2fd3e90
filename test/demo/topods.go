package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// reachPods has every pod send to every other pod.
func (d *demo) reachPods(ctx context.Context) error {
	pods := d.podEnds()
	if err := pods.listen(); err != nil {
		return err
	}
	defer pods.close()
	paths, failure := tryAll(ctx, pods, pods)
	if paths == nil {
		return failure
	}
	d.Heading("Every pod to every other pod")
	d.Text("Each pod sends UDP to each other one, which answers with the source address that it saw.\n" +
		"Round trip in microseconds, IPv4 and IPv6; a row is a sender, a column a receiver.")
	d.Table(matrix(pods, paths))
	if failure != nil {
		return failure
	}
	rows := [][]string{{"way", "paths", "median"}}
	for _, mode := range []string{"same node", "direct", "vxlan"} {
		these := ofMode(paths, mode)
		rows = append(rows, []string{mode, outOf(len(these)), median(these)})
	}
	d.Table(rows)
	if err := onlyOthers(pods); err != nil {
		return err
	}
	last := pods[len(pods)-1]
	d.Text("Every receiver has recorded the source addresses that it saw. Those at " + last.name + ":")
	d.Indented(last.echoes[0].sources() + "\n" + last.echoes[1].sources())
	d.Text(fmt.Sprintf("%s paths: every receiver saw the sender's own address, so none was translated.", outOf(len(paths))))
	d.summary = append(d.summary, outOf(len(paths))+" paths from pod to pod, without NAT")
	return nil
}

// matrix is the table of round trips.
func matrix(all []*end, paths []path) [][]string {
	cells := map[[2]*end][]string{}
	for _, p := range paths {
		cell := microseconds(p.answer.took)
		if p.err != nil {
			cell = "FAIL"
		}
		key := [2]*end{p.from, p.to}
		cells[key] = append(cells[key], fmt.Sprintf("%3s", cell))
	}
	head := []string{""}
	for _, e := range all {
		head = append(head, e.name)
	}
	rows := [][]string{head}
	for _, from := range all {
		row := []string{from.name}
		for _, to := range all {
			cell := "-"
			if from != to {
				cell = strings.Join(cells[[2]*end{from, to}], " ")
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return rows
}

// onlyOthers fails if a receiver has seen anything but the addresses of all
// other ends, as the receivers themselves recorded it.
func onlyOthers(all []*end) error {
	for _, receiver := range all {
		for f, family := range families {
			var want []netip.Addr
			for _, e := range all {
				if e != receiver {
					want = append(want, e.addresses[f])
				}
			}
			slices.SortFunc(want, netip.Addr.Compare)
			if got := receiver.echoes[f].seen(); !slices.Equal(got, want) {
				return fmt.Errorf("%s has seen the %s sources %v instead of %v", receiver.name, family, got, want)
			}
		}
	}
	return nil
}

func ofMode(paths []path, mode string) (these []path) {
	for _, p := range paths {
		if p.mode() == mode {
			these = append(these, p)
		}
	}
	return these
}

// median is the middle one of the paths' round trips, as a text.
func median(paths []path) string {
	if len(paths) == 0 {
		return "-"
	}
	var all []time.Duration
	for _, p := range paths {
		all = append(all, p.answer.took)
	}
	slices.Sort(all)
	return microseconds(all[len(all)/2]) + " µs"
}
