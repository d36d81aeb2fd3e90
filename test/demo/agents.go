package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/report"
)

// startAgents starts flatnetd on every node, and shows what it has done there.
func (d *demo) startAgents(ctx context.Context) error {
	list := nodesFile(d.nodes)
	d.cluster.WriteNodesText(list)
	rows := [][]string{{"node", "ready after", "installed by flatnetd"}}
	for _, n := range d.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		n.Start()
		took := n.WaitReady()
		installed, err := names(n.BinDir, n.ConfDir)
		if err != nil {
			return err
		}
		rows = append(rows, []string{n.Name, report.Milliseconds(took) + " ms", strings.Join(installed, ", ")})
	}
	d.Heading("flatnetd, the node agent")
	d.Text("Without Kubernetes the nodes are listed in a file, which every flatnetd watches:")
	d.Indented(strings.TrimSpace(list))
	d.Text("flatnetd is started on each node, with default settings:")
	d.Commands(agentCommand(d.nodes[0])...)
	d.Table(rows)
	return d.showStatus(ctx)
}

// nodesFile is the content of a nodes file.
func nodesFile(nodes []*cluster.Node) string {
	var text strings.Builder
	text.WriteString("nodes:\n")
	for _, n := range nodes {
		fmt.Fprintf(&text, "- name: %s\n  addresses: [%s, %q]\n  podCIDRs: [%s, %q]\n", // YAML quotes colons
			n.Name, n.Addresses[0], n.Addresses[1], n.PodCIDRs[0], n.PodCIDRs[1])
	}
	return text.String()
}

// showStatus shows what the first node's flatnetd says, after all have been
// asked whether they chose the ways that the topology calls for.
func (d *demo) showStatus(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.checkPeers(n); err != nil {
			return fmt.Errorf("status of flatnetd on %s: %w", n.Name, err)
		}
	}
	first := d.nodes[0]
	status, err := first.Flatnetd("status")
	if err != nil {
		return err
	}
	d.Text("It has chosen a way to each peer (--fabric auto): a plain route (direct) to the node on its own\n" +
		"subnet, the overlay (vxlan) to the one behind the router. This is what it says about it:")
	d.Commands(fmt.Sprintf("flatnetd status --state-dir %s", first.StateDir))
	d.Indented(strings.TrimSpace(status))
	return nil
}

// checkPeers fails if a node reaches another one in another way than it should,
// or has a problem.
func (d *demo) checkPeers(n *cluster.Node) error {
	status := n.Status()
	for _, p := range status.Problems {
		return fmt.Errorf("%s%s: %s (%s)", p.Node, p.Object, p.Reason, p.Advice)
	}
	if got, want := len(status.Peers), len(d.nodes)-1; got != want {
		return fmt.Errorf("%d peers instead of %d", got, want)
	}
	for _, peer := range status.Peers {
		want := mode(n, d.cluster.Node(peer.Name))
		if peer.Mode != want || len(peer.Ways) != len(families) {
			return fmt.Errorf("%s is joined by %s, in %d ways, instead of %s for %d podCIDRs",
				peer.Name, peer.Mode, len(peer.Ways), want, len(families))
		}
		for _, way := range peer.Ways {
			if !way.Present {
				return fmt.Errorf("the route to %s of %s is missing", way.PodCIDR, peer.Name)
			}
		}
	}
	return nil
}

// agentCommand is the command that started flatnetd on a node, in lines.
func agentCommand(n *cluster.Node) []string {
	const width = 90
	lines := []string{"ip netns exec " + n.Name + " flatnetd"}
	flags := n.Flags()
	for i := 0; i < len(flags); i += 2 {
		word := " " + flags[i] + " " + flags[i+1]
		if last := len(lines) - 1; len(lines[last]+word) < width {
			lines[last] += word
			continue
		}
		lines[len(lines)-1] += " \\"
		lines = append(lines, "   "+word)
	}
	return []string{strings.Join(lines, "\n    ")}
}

// names lists what is in directories.
func names(directories ...string) (all []string, err error) {
	for _, directory := range directories {
		entries, err := os.ReadDir(directory)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			all = append(all, filepath.Join(filepath.Base(directory), e.Name()))
		}
	}
	return all, nil
}
