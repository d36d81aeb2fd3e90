package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// portsOfNode are the ports of a node: of so many pods, so many each.
type portsOfNode struct{ pods, each int }

func (p portsOfNode) String() string {
	if p.pods*p.each == 1 {
		return "1 port on the node"
	}
	return thousands(p.pods*p.each) + " ports on the node"
}

// portConnections are connections from outside to a pod of a node.
type portConnections struct {
	of                        portsOfNode
	asker                     *asker
	pod                       netip.AddrPort
	ports                     []netip.AddrPort // of the node, that lead there
	through, directly, excess sample           // excess is of a round's medians
}

// connectThroughPorts opens connections to a pod, through a port of its node and
// directly, in turn.
func (b *bench) connectThroughPorts(ctx context.Context) ([]*portConnections, error) {
	s := newSite()
	defer s.Close()
	var all []*portConnections
	for _, of := range b.amount.ports {
		runners, err := b.runners(s, withPorts(b.flatnet("flatnet", single, false), of.each))
		if err != nil || len(runners) == 0 {
			return nil, err
		}
		one, err := b.portConnections(ctx, s, runners[0], of)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", of, err)
		}
		all = append(all, one)
	}
	const atOnce = 20
	dice := rand.New(rand.NewPCG(70, 70))
	for range b.amount.connections / atOnce * 2 {
		for _, which := range dice.Perm(len(all)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := all[which].round(dice, atOnce); err != nil {
				return nil, fmt.Errorf("%s: %w", all[which].of, err)
			}
		}
	}
	return all, nil
}

// portConnections fills a node with pods, and starts what answers in the first of them
// and what asks outside.
func (b *bench) portConnections(ctx context.Context, s *site, r *runner, of portsOfNode) (*portConnections, error) {
	for i := 1; i < of.pods; i++ {
		r.ports = hostPorts(firstOtherPort+i*of.each, of.each)
		if _, err := r.add(ctx, s.pod()); err != nil {
			return nil, err
		}
	}
	r.ports = hostPorts(firstPort, of.each)
	server := s.Pod(fmt.Sprint("server", s.nodes))
	if _, err := r.add(ctx, pod{id: server.Name, path: server.Path}); err != nil {
		return nil, err
	}
	address, err := addressOf(server)
	if err != nil {
		return nil, err
	}
	if err := r.node.SetSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	node := netip.AddrFrom4([4]byte{172, 30, 0, byte(s.nodes)})
	client := s.Node(fmt.Sprint("client", s.nodes), s.lan.Port(fmt.Sprintf("172.30.0.%d/24", 100+s.nodes)))
	if err := client.AddRoute(address.String()+"/32", node.String()); err != nil {
		return nil, err
	}
	one := &portConnections{of: of, pod: netip.AddrPortFrom(address, endpointPort)}
	for _, p := range r.ports {
		one.ports = append(one.ports, netip.AddrPortFrom(node, uint16(p.HostPort)))
	}
	one.asker, err = b.startAsking(s.Lab, client.Namespace, server)
	return one, err
}

// round opens n connections each way, in an order by chance.
func (c *portConnections) round(dice *rand.Rand, n int) error {
	ways := []struct {
		targets []netip.AddrPort
		found   *sample
		median  time.Duration
	}{{found: &c.through}, {found: &c.directly}}
	for range n {
		ways[0].targets = append(ways[0].targets, c.ports[dice.IntN(len(c.ports))])
		ways[1].targets = append(ways[1].targets, c.pod)
	}
	for _, i := range dice.Perm(len(ways)) {
		w := &ways[i]
		took, err := c.asker.ask(w.targets)
		if err != nil {
			return err
		}
		*w.found = append(*w.found, took...)
		w.median = took.median()
	}
	c.excess = append(c.excess, ways[0].median-ways[1].median)
	return nil
}

func portsTable(all []*portConnections) table {
	t := table{head: []string{"a new connection from outside, µs", "through the port", "p90", "to the pod's address", "p90", "difference"}}
	shown := func(d time.Duration) string { return digits(float64(d) / float64(time.Microsecond)) }
	for _, c := range all {
		t.rows = append(t.rows, []string{
			c.of.String(), shown(c.through.median()), shown(c.through.quantile(0.9)),
			shown(c.directly.median()), shown(c.directly.quantile(0.9)), shown(c.excess.median()),
		})
	}
	return t
}

func portsRatios(all []*portConnections) (ratios []ratio) {
	for _, c := range all {
		const limit = 2 * time.Microsecond
		more := c.excess.median()
		ratios = append(ratios, ratio{
			what:  "a new connection, more through a port than directly, " + c.of.String(),
			shown: fmt.Sprintf("%.2f µs", float64(more)/float64(time.Microsecond)), target: "≤ 2 µs", met: more <= limit,
		})
	}
	return ratios
}
