package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// end is a pod, a node or the host outside, as somebody who sends and is sent to.
type end struct {
	name      string
	space     *netlab.Namespace
	on        *cluster.Node // nil outside of the cluster
	isPod     bool
	addresses [2]netip.Addr
	echoes    [2]*echo
}

// sourceAt is the address that a receiver is to see of what e sends. Pods are
// seen as who they are, but for those outside of the cluster, whose answers
// would not find back; a node reaches pods through the overlay from its own
// address there, the first of its podCIDR.
func (e *end) sourceAt(receiver *end, family int) netip.Addr {
	switch {
	case receiver.on == nil:
		return e.on.Addresses[family]
	case !e.isPod && receiver.isPod && mode(e.on, receiver.on) == "vxlan":
		return e.on.PodCIDRs[family].Addr()
	}
	return e.addresses[family]
}

// path is one end reaching another in one family.
type path struct {
	from, to *end
	family   int
	source   netip.Addr // that the receiver is to see
	answer   answer
	err      error // nil where the right end has answered and has seen that source
}

// mode is how the path crosses the nodes.
func (p path) mode() string { return mode(p.from.on, p.to.on) }

// try fills in what comes of the path.
func (p *path) try(ctx context.Context, patience time.Duration) {
	target := p.to.addresses[p.family]
	p.answer, p.err = ask(ctx, p.from.space, target, patience)
	switch {
	case p.err != nil:
	case p.answer.from != p.to.name:
		p.err = fmt.Errorf("%s has answered", p.answer.from)
	case p.answer.saw != p.source:
		p.err = fmt.Errorf("the receiver saw the source %v instead of %v", p.answer.saw, p.source)
	}
	if p.err != nil {
		p.err = fmt.Errorf("%s to %s (%v): %w", p.from.name, p.to.name, target, p.err)
	}
}

// answerPatience is how long a path may take before it is said to be dead; it
// allows for a machine that is busy with something else.
const answerPatience = time.Minute

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
				p := path{from: sender, to: receiver, family: f, source: sender.sourceAt(receiver, f)}
				p.try(ctx, patience)
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				if p.err != nil {
					failures = append(failures, p.err)
					patience = answerPatience / 60
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

// listen has an end answer, until it is closed.
func (e *end) listen() error {
	for f, address := range e.addresses {
		var err error
		if e.echoes[f], err = listen(e.space, e.name, address); err != nil {
			e.close()
			return err
		}
	}
	return nil
}

func (e *end) close() {
	for _, echo := range e.echoes {
		if echo != nil {
			echo.close()
		}
	}
}

// ends are some that answer.
type ends []*end

func (all ends) listen() error {
	for _, e := range all {
		if err := e.listen(); err != nil {
			all.close()
			return err
		}
	}
	return nil
}

func (all ends) close() {
	for _, e := range all {
		e.close()
	}
}

func podEnd(p *cluster.Pod) *end {
	return &end{name: p.Name, space: p.Namespace, on: p.Node, isPod: true, addresses: addresses(p)}
}

func (d *demo) podEnds() (all ends) {
	for _, p := range d.pods {
		all = append(all, podEnd(p))
	}
	return all
}

func (d *demo) nodeEnds() (all ends) {
	for _, n := range d.nodes {
		all = append(all, nodeEnd(n))
	}
	return all
}

func nodeEnd(n *cluster.Node) *end {
	return &end{name: n.Name, space: n.Namespace, on: n, addresses: [2]netip.Addr(n.Addresses)}
}

func (d *demo) outsideEnd() *end {
	return &end{name: "outside", space: d.outside.Namespace, addresses: [2]netip.Addr{
		netip.MustParseAddr(outerHost[0]), netip.MustParseAddr(outerHost[1]),
	}}
}
