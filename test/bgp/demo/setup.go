package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/racks"
)

const drawing = `                          world   172.31.0.9, fd00:31::9
                            |
   ---+-----------+---------+---------+-----------+---   172.31.0.0/24, fd00:31::/64
      |           |                   |           |
   a1 BIRD     a2 FRR              b1 BIRD     b2 FRR
      |           |                   |           |
   ---+-----+-----+---             ---+-----+-----+---
            |  172.30.0.0/24                |  172.30.1.0/24
            n1 fd00:30::/64                 n2 fd00:30:1::/64
        web-1 .. web-4                  web-5 .. web-8   (the pods)

   AS of the nodes: 64512, of a1 and a2: 64601, of b1 and b2: 64602`

// makeRacks makes the machines.
func (d *demo) makeRacks(binaries string) (err error) {
	c := cluster.New(d.lab, binaries)
	c.Datapath = "auto" // as everywhere but in tests
	if d.racks, err = racks.New(c); err != nil {
		return err
	}
	d.Heading("Two racks")
	d.Indented(drawing)
	return nil
}

// The configuration that nodes have: sessions of a short hold time, so that a router's death
// is soon noticed.
func configuration() string {
	text := strings.ReplaceAll(racks.Usual, ", connectRetry: 1s", ", holdTime: 3s")
	return strings.TrimSpace(text) + "\nannounce: {services: [loadBalancer]}\n"
}

// speak starts routers and nodes, and shows what they tell each other.
func (d *demo) speak(ctx context.Context) error {
	kubeconfig := filepath.Join(d.racks.Directory, "kubeconfig")
	const address = "172.31.0.9:6443"
	if err := apiserver.WriteKubeconfig(kubeconfig, address); err != nil {
		return err
	}
	d.api = apiserver.New()
	if err := d.racks.World.Do(func() error { return d.api.Listen(address) }); err != nil {
		return err
	}
	if err := d.racks.Configure(configuration()); err != nil {
		return err
	}
	d.racks.WriteNodes()
	for _, r := range d.racks.Routers() {
		if err := r.Start(); err != nil {
			return err
		}
	}
	for _, n := range d.racks.Nodes {
		n.Start("--bgp-config", d.racks.Config, "--services", "--services-health=", "--services-metrics=", "--kubeconfig", kubeconfig)
	}
	for _, n := range d.racks.Nodes {
		n.WaitReady()
		if err := d.joined(ctx, n, 2); err != nil {
			return err
		}
	}
	d.Heading("What is told")
	d.Text("flatnetd runs on n1 and n2 with --bgp-config. The file is the same on both:")
	d.Indented(configuration())
	d.Text("Routers have the usual configuration: each is a peer of its rack's node and of the other rack's\nrouters (docs/bgp.md has all of it). This is what each of a rack's two knows then:")
	if err := d.ask(d.racks.A1, "show route table master4"); err != nil {
		return err
	}
	if err := d.ask(d.racks.A2, "show bgp ipv4"); err != nil {
		return err
	}
	d.Text("And this is what n1 has learned: the pods of n2 are behind both of its routers.")
	if err := d.shown(d.racks.N1.Namespace, "n1", "ip", "route", "show", "proto", "70"); err != nil {
		return err
	}
	text, err := d.racks.N1.Flatnetd("status", "bgp")
	if err != nil {
		return err
	}
	d.says("n1", "flatnetd status bgp", narrow(text))
	d.summary = append(d.summary, "8 BGP sessions of 2 nodes, with BIRD and FRR, in both families")
	return nil
}

// joined waits until a node reaches the other's pods in both families by what so many
// routers tell.
func (d *demo) joined(ctx context.Context, n *cluster.Node, hops int) error {
	_, err := pace.Await(pace.Far(), func() error {
		if ctx.Err() != nil {
			return nil
		}
		status, err := n.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range status.Peers {
			for _, w := range p.Ways {
				if w.Mode != "bgp" || !w.Present || max(1, len(w.Hops)) != hops {
					return fmt.Errorf("%s is reached by %+v", w.PodCIDR, w)
				}
			}
		}
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("waiting for %s to reach pods by %d routers: %w", n.Name, hops, err)
	}
	return nil
}
