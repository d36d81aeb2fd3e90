package main

import (
	"context"
	"fmt"
)

// hostPort is a port of the node that is a pod's, as the runtime asks for it.
type hostPort struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

// hostPorts are n ports of TCP from first on, which lead to the same one of the pod.
func hostPorts(first, n int) []hostPort {
	all := make([]hostPort, n)
	for i := range all {
		all[i] = hostPort{HostPort: first + i, ContainerPort: endpointPort, Protocol: "tcp"}
	}
	return all
}

// The ports of pods that are measured, and those of pods that are there besides.
const firstPort, firstOtherPort = 8080, 10000

// withPorts gives a contender's pods ports of the node.
func withPorts(c contender, n int) contender {
	c.ports = hostPorts(firstPort, n)
	return withCapability(c, "portMappings", "portmap")
}

// The contenders of an ADD with ports.
const (
	portless  = "flatnet"
	older     = "flatnet of -before"
	twoPorts  = "flatnet, 2 ports"
	besides   = "flatnet, 2 ports, and another pod has some"
	peersPort = "ptp, 2 ports + portmap"
)

// measurePorts attaches pods with ports of the node and without, and opens connections
// through such ports.
func measurePorts(ctx context.Context, b *bench) (section, error) {
	added, err := b.addWithPorts(ctx)
	if err != nil {
		return section{}, err
	}
	all, err := b.connectThroughPorts(ctx)
	if err != nil {
		return section{}, fmt.Errorf("opening connections: %w", err)
	}
	return section{table: added.table(), compared: portsTable(all), ratios: append(addedRatios(added), portsRatios(all)...)}, nil
}

// addWithPorts measures ADD and DEL of one pod at a time. A pod's ports are the first of
// its node, where the plugin makes the table too, or not.
func (b *bench) addWithPorts(ctx context.Context) (timings, error) {
	s := newSite()
	defer s.Close()
	slow := withPorts(b.ptp("ptp, 2 ports", single, false), 2)
	slow.every = 4
	all := []contender{
		b.flatnet(portless, single, false), withPorts(b.flatnet(twoPorts, single, false), 2), withPorts(b.flatnet(besides, single, false), 2),
		b.ptp("ptp", single, false), slow,
	}
	if b.before != "" {
		old := b.flatnet(older, single, false)
		old.directory = b.before
		all = append(all, old)
	}
	runners, err := b.runners(s, all...)
	if err != nil {
		return nil, err
	}
	for _, r := range runners {
		if r.name != besides {
			continue
		}
		asked := r.ports
		r.ports = hostPorts(firstOtherPort, 2)
		if _, err := r.add(ctx, s.pod()); err != nil {
			return nil, err
		}
		r.ports = asked
	}
	return alternate(ctx, s, b.amount.rounds, runners)
}

func addedRatios(t timings) []ratio {
	with, without := t.add(twoPorts), t.add(portless)
	return []ratio{
		atMost("ADD, flatnet with 2 ports / without, the first on the node", with, without, 1.15),
		atMost("ADD, flatnet with 2 ports / without, another pod has some", t.add(besides), without, 1.15),
		atMost("ADD, flatnet / ptp + portmap, with 2 ports", with, t.add(peersPort), 0.15),
		atMost("ADD without ports, flatnet / an older one (-before)", without, t.add(older), 1.02),
		informative("DEL, flatnet with 2 ports / without, the first on the node", t.del(twoPorts), t.del(portless)),
		informative("DEL, flatnet with 2 ports / without, another pod has some", t.del(besides), t.del(portless)),
		informative("DEL, flatnet / ptp + portmap, with 2 ports", t.del(twoPorts), t.del(peersPort)),
	}
}
