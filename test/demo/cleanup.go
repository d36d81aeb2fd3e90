package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// cleanUp takes flatnet off the nodes, and shows that nothing is left on them.
func (d *demo) cleanUp(ctx context.Context) error {
	rows := [][]string{{"node", "", "interfaces", "routes", "rules", "nft tables", "files"}}
	var removed []string
	for i, n := range d.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		what, err := uninstall(n)
		if err != nil {
			return err
		}
		if i == 0 {
			removed = what
		}
	}
	after, err := d.countAll()
	if err != nil {
		return err
	}
	for i, n := range d.nodes {
		rows = append(rows,
			append([]string{n.Name}, d.busy[i].row("with pods")...),
			append([]string{""}, after[i].row("now")...))
	}
	first := d.nodes[0]
	d.Heading("What is left")
	d.Text("flatnetd ends (SIGTERM), and `flatnetd cleanup` takes flatnet off each node. On " + first.Name + " it says:")
	d.Commands(fmt.Sprintf("ip netns exec %s flatnetd cleanup --state-dir %s …", first.Name, first.StateDir))
	d.Indented(beginning(removed))
	d.Text("All that flatnet makes carries its mark, so that it can be counted, before and now:")
	d.Table(rows)
	d.Commands(
		fmt.Sprintf("ip -n %s link show group %d; ip -n %s link show %s", first.Name, mark, first.Name, tunnel),
		fmt.Sprintf("ip -n %s route show table all proto %d; ip -n %s -6 route show table all proto %d", first.Name, mark, first.Name, mark),
		fmt.Sprintf("ip -n %s rule; ip -n %s -6 rule; ip netns exec %s nft list tables", first.Name, first.Name, first.Name),
	)
	if err := nothing(d.nodes, after); err != nil {
		return err
	}
	d.summary = append(d.summary, "nothing left")
	return nil
}

// beginning is the first lines of many, and of each what fits.
func beginning(lines []string) string {
	const most, width = 6, 90
	var shown []string
	for _, line := range lines[:min(most, len(lines))] {
		if len(line) > width {
			line = line[:width] + " …"
		}
		shown = append(shown, line)
	}
	if more := len(lines) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("(and %d more)", more))
	}
	return strings.Join(shown, "\n")
}

// uninstall ends a node's flatnetd, if it runs, and removes what flatnet has
// made there. It returns the lines in which flatnetd cleanup says what that was.
func uninstall(n *cluster.Node) ([]string, error) {
	var lines []string
	err := netlab.Guarded(func() error {
		n.Stop()
		return nil
	})
	out, failure := n.Flatnetd("cleanup")
	if failure != nil {
		return nil, fmt.Errorf("cleaning up %s: %w", n.Name, failure)
	}
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, err
}
