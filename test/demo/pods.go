package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/report"
)

// podRoles are the pods of each node; the node's number is added.
var podRoles = []string{"web", "db"}

// attachPods makes pods on every node and runs ADD for each.
func (d *demo) attachPods(ctx context.Context) error {
	configuration, err := os.ReadFile(d.nodes[0].Conflist())
	if err != nil {
		return err
	}
	d.Heading("Pods: ADD")
	d.Text("flatnetd has installed the CNI plugin and this configuration of it, here that of node1:")
	d.Indented(strings.TrimSpace(string(configuration)))
	d.Text("The container runtime executes the plugin once for each pod:")
	rows := [][]string{{"pod", "node", "IPv4", "IPv6", "host interface", "MTU", "ADD"}}
	for _, n := range d.nodes {
		for _, role := range podRoles {
			if err := ctx.Err(); err != nil {
				return err
			}
			p, err := attach(n, fmt.Sprintf("%s-%d", role, n.Number))
			if err != nil {
				return err
			}
			d.pods = append(d.pods, p)
			rows = append(rows, []string{
				p.Name, n.Name, p.Address(false).String(), p.Address(true).String(), p.HostInterface,
				fmt.Sprint(p.MTU), report.Milliseconds(p.Took) + " ms",
			})
		}
	}
	d.Table(rows)
	d.cniCommand("add")
	return nil
}

// attach makes a pod, whose addresses have to be of the node's podCIDRs.
func attach(n *cluster.Node, name string) (*cluster.Pod, error) {
	p := n.Pod(name)
	for f, a := range addresses(p) {
		if !n.PodCIDRs[f].Contains(a) {
			return nil, fmt.Errorf("the %s address of pod %s on %s is %v, which is not one of %v", families[f], name, n.Name, a, n.PodCIDRs[f])
		}
	}
	return p, nil
}

func addresses(p *cluster.Pod) [2]netip.Addr {
	return [2]netip.Addr{p.Address(false), p.Address(true)}
}

// cniCommand shows how to call a verb for the first pod.
func (d *demo) cniCommand(verb string) {
	n := d.nodes[0]
	d.Commands(
		fmt.Sprintf("export CNI_PATH=%s NETCONFPATH=%s", n.BinDir, n.ConfDir),
		fmt.Sprintf("ip netns exec %s cnitool %s flatnet /run/netns/%s   # the other pods likewise", n.Name, verb, d.pods[0].Name))
}

// detachPods runs CHECK and DEL for each pod.
func (d *demo) detachPods(ctx context.Context) error {
	var err error
	if d.busy, err = d.countAll(); err != nil {
		return err
	}
	checks, err := d.forEach(ctx, (*cluster.Pod).Check)
	if err != nil {
		return err
	}
	deletions, err := d.forEach(ctx, func(p *cluster.Pod) error {
		p.Delete()
		return nil
	})
	if err != nil {
		return err
	}
	d.Heading("Pods: CHECK and DEL")
	d.Text(fmt.Sprintf("CHECK compares every interface, address, route and rule of a pod with what ADD has made, and\n"+
		"finds no difference in %s pods (%s).\n"+
		"DEL has detached %s pods (%s).", outOf(len(d.pods)), checks, outOf(len(d.pods)), deletions))
	d.summary = append(d.summary, fmt.Sprintf("%d pods attached, checked and detached", len(d.pods)))
	return nil
}

// forEach calls a verb for every pod and returns a text of how long each took.
func (d *demo) forEach(ctx context.Context, verb func(*cluster.Pod) error) (string, error) {
	var times []string
	for _, p := range d.pods {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := verb(p); err != nil {
			return "", err
		}
		times = append(times, report.Milliseconds(p.Took))
	}
	return strings.Join(times, ", ") + " ms", nil
}
