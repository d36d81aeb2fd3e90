package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// end is a pod or a node, as somebody who sends and is sent to.
type end struct {
	name      string
	space     *netlab.Namespace
	addresses [2]netip.Addr
	echoes    [2]*echo
}

// path is one end reaching another in one family.
type path struct {
	from, to *end
	family   int
	answer   answer
	err      error // nil where the right end has answered and has seen the sender's own address
}

// try fills in what comes of the path.
func (p *path) try(ctx context.Context, patience time.Duration) {
	source, target := p.from.addresses[p.family], p.to.addresses[p.family]
	p.answer, p.err = ask(ctx, p.from.space, target, patience)
	switch {
	case p.err != nil:
	case p.answer.from != p.to.name:
		p.err = fmt.Errorf("%s has answered", p.answer.from)
	case p.answer.saw != source:
		p.err = fmt.Errorf("the receiver saw the source %v instead of %v", p.answer.saw, source)
	}
	if p.err != nil {
		p.err = fmt.Errorf("%s to %s (%v): %w", p.from.name, p.to.name, target, p.err)
	}
}

// answerPatience is how long a path may take before it is said to be dead; it
// allows for a machine that is busy with something else.
const answerPatience = 5 * time.Second

// tryAll tries the paths from each sender to each receiver but itself. It goes
// on after a failure, so that it is seen which paths work; once one is dead,
// the others are given less time. Its error lists the first failures.
func tryAll(ctx context.Context, from, to []*end) ([]path, error) {
	var paths []path
	var failures []error
	patience := answerPatience
	for _, sender := range from {
		for _, receiver := range to {
			for f := range families {
				if sender == receiver {
					continue
				}
				p := path{from: sender, to: receiver, family: f}
				p.try(ctx, patience)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if p.err != nil {
					failures = append(failures, p.err)
					patience = answerPatience / 10
				}
				paths = append(paths, p)
			}
		}
	}
	if len(failures) == 0 {
		return paths, nil
	}
	const most = 5
	shown := slices.Clone(failures[:min(most, len(failures))])
	if more := len(failures) - len(shown); more > 0 {
		shown = append(shown, fmt.Errorf("and %d more", more))
	}
	return paths, fmt.Errorf("%d of %d paths failed: %w", len(failures), len(paths), errors.Join(shown...))
}

// open makes an end that answers.
func open(name string, space *netlab.Namespace, addresses [2]netip.Addr) (*end, error) {
	e := &end{name: name, space: space, addresses: addresses}
	for f, address := range addresses {
		var err error
		if e.echoes[f], err = listen(space, name, address); err != nil {
			e.close()
			return nil, err
		}
	}
	return e, nil
}

func (e *end) close() {
	for _, echo := range e.echoes {
		if echo != nil {
			echo.close()
		}
	}
}

func closeAll(ends []*end) {
	for _, e := range ends {
		e.close()
	}
}

func (d *demo) podEnds() (ends []*end, err error) {
	for _, p := range d.pods {
		e, err := open(p.name, p.space, p.addresses)
		if err != nil {
			closeAll(ends)
			return nil, err
		}
		ends = append(ends, e)
	}
	return ends, nil
}

func (d *demo) nodeEnds() (ends []*end, err error) {
	for _, n := range d.nodes {
		e, err := open(n.name, n.Namespace, n.addresses)
		if err != nil {
			closeAll(ends)
			return nil, err
		}
		ends = append(ends, e)
	}
	return ends, nil
}

// reachPods has every pod send to every other pod.
func (d *demo) reachPods(ctx context.Context) error {
	pods, err := d.podEnds()
	if err != nil {
		return err
	}
	defer closeAll(pods)
	paths, failure := tryAll(ctx, pods, pods)
	if paths == nil {
		return failure
	}
	d.heading("Every pod to every other pod")
	d.text("Each pod sends UDP to each other one, which answers with the source address that it saw.\n" +
		"Round trip in microseconds, IPv4 and IPv6; a row is a sender, a column a receiver.")
	d.table(matrix(pods, paths))
	d.text("These are the source addresses that each receiver has seen:")
	rows := [][]string{{"receiver", "sources"}}
	for _, receiver := range pods {
		for f := range families {
			label := receiver.name
			if f > 0 {
				label = ""
			}
			rows = append(rows, []string{label, receiver.echoes[f].sources()})
		}
	}
	d.table(rows)
	if failure != nil {
		return failure
	}
	if err := onlyOthers(pods); err != nil {
		return err
	}
	d.text(fmt.Sprintf("%s paths: every receiver saw the sender's own address, so none was translated.", outOf(len(paths))))
	d.summary = append(d.summary, outOf(len(paths))+" paths without NAT")
	return nil
}

// matrix is the table of round trips.
func matrix(ends []*end, paths []path) [][]string {
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
	for _, e := range ends {
		head = append(head, e.name)
	}
	rows := [][]string{head}
	for _, from := range ends {
		row := []string{from.name}
		for _, to := range ends {
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
func onlyOthers(ends []*end) error {
	for _, receiver := range ends {
		for f, family := range families {
			var want []netip.Addr
			for _, e := range ends {
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

// reachNodes has nodes and pods send to each other, and pods to their gateway.
func (d *demo) reachNodes(ctx context.Context) error {
	pods, err := d.podEnds()
	if err != nil {
		return err
	}
	defer closeAll(pods)
	nodes, err := d.nodeEnds()
	if err != nil {
		return err
	}
	defer closeAll(nodes)
	down, err := tryAll(ctx, nodes, pods)
	if err != nil {
		return fmt.Errorf("nodes to pods: %w", err)
	}
	up, err := tryAll(ctx, pods, nodes)
	if err != nil {
		return fmt.Errorf("pods to nodes: %w", err)
	}
	gateways, err := d.pingGateways(ctx)
	if err != nil {
		return err
	}
	d.heading("Nodes and gateways")
	d.text("The same between nodes and pods, on one node and across nodes. A pod's gateway answers ping.")
	d.table([][]string{
		{"from", "to", "paths", "source that the receiver saw", "median round trip"},
		{"every node", "every pod", outOf(len(down)), "the node's own address", median(durations(down)) + " µs"},
		{"every pod", "every node", outOf(len(up)), "the pod's own address", median(durations(up)) + " µs"},
		{"every pod", "its gateway", outOf(len(gateways)), "-", median(gateways) + " µs"},
	})
	p := d.pods[0]
	d.commands(
		fmt.Sprintf("ip netns exec %s ping -c1 %s", p.name, p.gateways[0]),
		fmt.Sprintf("ip netns exec %s ping -c1 %s", p.name, p.gateways[1]),
	)
	return nil
}

// pingGateways has every pod ping the gateways that ADD has told it.
func (d *demo) pingGateways(ctx context.Context) ([]time.Duration, error) {
	var times []time.Duration
	for _, p := range d.pods {
		for f := range families {
			took, err := ping(ctx, p.space, p.gateways[f], answerPatience)
			if err != nil {
				return nil, fmt.Errorf("%s to its gateway: %w", p.name, err)
			}
			times = append(times, took)
		}
	}
	return times, nil
}

func durations(paths []path) []time.Duration {
	var all []time.Duration
	for _, p := range paths {
		all = append(all, p.answer.took)
	}
	return all
}

func median(all []time.Duration) string {
	slices.Sort(all)
	return microseconds(all[len(all)/2])
}
