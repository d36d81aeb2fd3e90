package main

import "context"

// measureLatency attaches and detaches one pod at a time on an empty node.
func measureLatency(ctx context.Context, b *bench) (section, error) {
	s := newSite()
	defer s.Close()
	// A dual-stack ADD of ptp waits for duplicate address detection.
	slow := b.ptp("ptp, dual stack", dual, false)
	slow.every = 10
	runners, err := b.runners(s,
		b.flatnet("flatnet", single, false),
		b.ptp("ptp", single, false),
		b.bridge("bridge", single),
		b.stub("floor"),
		b.stub("noop"),
		b.flatnet("flatnet, dual stack", dual, false),
		slow,
		b.flatnet("flatnet, ipMasq", single, true),
		b.ptp("ptp, ipMasq", single, true),
		withPorts(b.ptp("ptp, ipMasq", single, true), 1),
	)
	if err != nil {
		return section{}, err
	}
	t, err := alternate(ctx, s, b.amount.rounds, runners)
	if err != nil {
		return section{}, err
	}
	return section{table: t.table(), ratios: []ratio{
		atMost("ADD, flatnet / ptp", t.add("flatnet"), t.add("ptp"), 0.45),
		atMost("ADD, flatnet / floor", t.add("flatnet"), t.add("floor"), 1.35),
		atMost("ADD, flatnet dual stack / flatnet", t.add("flatnet, dual stack"), t.add("flatnet"), 1.4),
		atMost("ADD, flatnet ipMasq / flatnet", t.add("flatnet, ipMasq"), t.add("flatnet"), 1.1),
		atMost("ADD, flatnet ipMasq / ptp ipMasq", t.add("flatnet, ipMasq"), t.add("ptp, ipMasq"), 0.2),
		atMost("DEL, flatnet / ptp", t.del("flatnet"), t.del("ptp"), 0.65),
		atMost("DEL, flatnet / floor", t.del("flatnet"), t.del("floor"), 1.15),
		informative("ADD, flatnet / bridge", t.add("flatnet"), t.add("bridge")),
		informative("ADD, flatnet dual stack / ptp dual stack", t.add("flatnet, dual stack"), t.add("ptp, dual stack")),
		informative("ADD, flatnet ipMasq / ptp ipMasq + portmap", t.add("flatnet, ipMasq"), t.add("ptp, ipMasq + portmap")),
		informative("DEL, flatnet ipMasq / ptp ipMasq", t.del("flatnet, ipMasq"), t.del("ptp, ipMasq")),
		informative("ADD, floor / noop", t.add("floor"), t.add("noop")),
	}}, nil
}
