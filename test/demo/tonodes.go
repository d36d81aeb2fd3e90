package main

import (
	"context"
	"fmt"
)

// reachNodes has nodes and pods send to each other, and pods to the host outside.
func (d *demo) reachNodes(ctx context.Context) error {
	pods, nodes, outside := d.podEnds(), d.nodeEnds(), d.outsideEnd()
	everybody := append(append(ends{outside}, pods...), nodes...)
	if err := everybody.listen(); err != nil {
		return err
	}
	defer everybody.close()
	down, err := tryAll(ctx, nodes, pods)
	if err != nil {
		return fmt.Errorf("nodes to pods: %w", err)
	}
	up, err := tryAll(ctx, pods, nodes)
	if err != nil {
		return fmt.Errorf("pods to nodes: %w", err)
	}
	out, err := tryAll(ctx, pods, ends{outside})
	if err != nil {
		return fmt.Errorf("pods to the host outside: %w", err)
	}
	d.Heading("Nodes, and the world outside")
	d.Text("The same between nodes and pods. Who is not part of the cluster has no way back to a pod: only what\n" +
		"leaves the cluster is given the node's address (masqueraded).")
	overlaid := ofMode(down, "vxlan")
	onLink := append(ofMode(down, "same node"), ofMode(down, "direct")...)
	d.Table([][]string{
		{"from", "to", "paths", "source that the receiver saw", "median"},
		{"node", "pod (same node, direct)", outOf(len(onLink)), "the node's address", median(onLink)},
		{"node", "pod (vxlan)", outOf(len(overlaid)), "the node's address on the overlay", median(overlaid)},
		{"pod", "node", outOf(len(up)), "the pod's own address", median(up)},
		{"pod", "outside", outOf(len(out)), "the address of the pod's node", median(out)},
	})
	d.Text("The host outside has recorded these sources, and they are the nodes':")
	d.Indented(outside.echoes[0].sources() + "\n" + outside.echoes[1].sources())
	d.summary = append(d.summary, outOf(len(down)+len(up))+" paths between pods and nodes, without NAT",
		outOf(len(out))+" paths from pods to the outside, masqueraded")
	return nil
}
