package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

// bench is one run of the benchmark.
type bench struct {
	node      node
	namespace string
	out       io.Writer // progress

	rounds        int
	pods, singles int // of a burst, and one after another, each round
	containers    int // on the node before the first pod

	// idle is the least share of the processors that had nothing to do in the second
	// before a turn.
	idle float64
}

// run measures all contenders in every round, in turn, and another one first in
// the next. The result has the turns of each, by name.
func (b *bench) run(ctx context.Context, all []contender) (found map[string][]turn, err error) {
	if b.containers, err = b.node.containers(); err != nil {
		return nil, err
	}
	b.idle = 1
	if _, err := b.node.lab.Kubectl("create", "namespace", b.namespace); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	err = until(ctx, 30*time.Second, "service account in namespace "+b.namespace, func() error {
		_, err := b.node.lab.Kubectl("-n", b.namespace, "get", "serviceaccount", "default")
		return err
	})
	if err != nil {
		return nil, err
	}
	found = map[string][]turn{}
	for round := range b.rounds {
		for i := range all {
			c := all[(round+i)%len(all)]
			fmt.Fprintf(b.out, "round %d of %d, %s … ", round+1, b.rounds, c.name)
			t, err := b.turn(ctx, c)
			if err != nil {
				fmt.Fprintln(b.out)
				return nil, err
			}
			fmt.Fprintf(b.out, "ADD of %d pods at once %s ms each, one after another %s ms; all ready after %s s\n",
				b.pods, milliseconds(t.burst.add.mean()), milliseconds(t.single.add.mean()), seconds(t.burst.ready[0]))
			found[c.name] = append(found[c.name], t)
		}
	}
	return found, nil
}

// clean leaves the node as it was. What is left of pods goes first, with the
// plugins that made it.
func (b *bench) clean() error {
	ctx := context.Background() // also after an interruption
	_, err := b.node.lab.Kubectl("delete", "namespace", b.namespace, "--timeout=3m")
	err = errors.Join(err, b.forgotten(ctx))
	_, rmErr := b.node.lab.Output(b.node.name, "rm", "-f", referenceFile)
	return errors.Join(err, rmErr, b.node.lab.RemovePortmap(b.node.name))
}

// quietLimit is how long a turn waits for others to end their work.
const quietLimit = 2 * time.Minute

// quiet waits until the processors are idle for most of a second, but goes on
// after a while: the report says how idle they were.
func (b *bench) quiet(ctx context.Context) error {
	for end := time.Now().Add(quietLimit); ; {
		before, err := page.Look()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		after, err := page.Look()
		if err != nil {
			return err
		}
		if idle := after.Idle(before); idle >= 0.8 || time.Now().After(end) {
			b.idle = min(b.idle, idle)
			return nil
		}
	}
}

// until calls f until it returns nil, ten times a second: for conditions that
// nothing announces. It fails with f's last error.
func until(ctx context.Context, limit time.Duration, what string, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waiting %s for %s: %w", limit, what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
