package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
)

// openings are connections that one pod opens to another: to connect, send a byte, receive
// one and close.
type openings struct {
	asker *asker
	to    netip.AddrPort
	took  []sample // a round each
}

// openInTurn opens everybody's connections, in turn.
func (b *bench) openInTurn(ctx context.Context, dice *rand.Rand, all []*openings) error {
	const atOnce = 20
	targets := make([]netip.AddrPort, atOnce)
	for range b.amount.connections / atOnce * 2 {
		for _, which := range dice.Perm(len(all)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			o := all[which]
			for i := range targets {
				targets[i] = o.to
			}
			took, err := o.asker.ask(targets)
			if err != nil {
				return err
			}
			o.took = append(o.took, took)
		}
	}
	return nil
}
