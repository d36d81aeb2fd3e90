package main

import (
	"context"
	"fmt"
)

// measureGrowth attaches a pod to nodes that have few pods already, and many.
//
// All nodes share one kernel, where the pods of one might cost another something, and
// a ratio between two nodes would not show it. So the nodes with few pods are measured
// by themselves first.
func measureGrowth(ctx context.Context, b *bench) (section, error) {
	s := newSite()
	defer s.Close()
	kinds := []struct {
		name  string
		many  int
		limit float64
		make  func(name string) contender
	}{
		{"flatnet", b.amount.many, 1.2, func(name string) contender { return b.flatnet(name, single, false) }},
		{"flatnet, dual stack", b.amount.manyDual, 0, func(name string) contender { return b.flatnet(name, dual, false) }},
		{"floor", b.amount.many, 0, func(name string) contender { c := b.stub("floor"); c.name = name; return c }},
		{"ptp", b.amount.manyPeer, 0, func(name string) contender { return b.ptp(name, single, false) }},
	}
	var fewPods, manyPods []*runner
	for _, kind := range kinds {
		few, err := b.filled(ctx, s, kind.make(populated(kind.name, b.amount.few)), b.amount.few)
		if err != nil {
			return section{}, err
		}
		fewPods = append(fewPods, few...)
	}
	alone, err := alternate(ctx, s, b.amount.rounds/2, fewPods)
	if err != nil {
		return section{}, err
	}
	for i := range alone {
		alone[i].name += ", before the other nodes"
	}
	for _, kind := range kinds {
		many, err := b.filled(ctx, s, kind.make(populated(kind.name, kind.many)), kind.many)
		if err != nil {
			return section{}, err
		}
		manyPods = append(manyPods, many...)
	}
	t, err := alternate(ctx, s, b.amount.rounds, append(fewPods, manyPods...))
	if err != nil {
		return section{}, err
	}
	var ratios []ratio
	for _, kind := range kinds {
		few, many := populated(kind.name, b.amount.few), populated(kind.name, kind.many)
		what := fmt.Sprintf("%s, %d pods / %d pods", kind.name, kind.many, b.amount.few)
		ratios = append(ratios,
			atMost("ADD, "+what, t.add(many), t.add(few), kind.limit),
			informative("DEL, "+what, t.del(many), t.del(few)))
	}
	return section{table: append(alone, t...).table(), ratios: ratios}, nil
}

func populated(name string, pods int) string { return fmt.Sprintf("%s, %d pods", name, pods) }

// filled gives a contender a node with so many pods, or nothing if its programs are
// not there.
func (b *bench) filled(ctx context.Context, s *site, c contender, pods int) ([]*runner, error) {
	runners, err := b.runners(s, c)
	if err != nil {
		return nil, err
	}
	for _, r := range runners {
		add := func(p pod) error { _, err := r.add(ctx, p); return err }
		if _, err := each(s.podsFor(pods), b.amount.atOnce, add); err != nil {
			return nil, err
		}
	}
	return runners, nil
}
