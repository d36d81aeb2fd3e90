package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// part is what was measured of some pods: how long it took the node, and when
// users saw it.
type part struct {
	add, network, sandbox work
	del, stop             work
	ready                 []time.Duration // one of each kubectl apply
	gone                  []time.Duration // one of each kubectl delete
}

// turn is what was measured of one contender in one round.
type turn struct{ burst, single part }

// turn measures pods in a burst, and pods one after another. When it returns
// nothing is left of them, on the node either.
func (b *bench) turn(ctx context.Context, c contender) (t turn, err error) {
	if err := b.use(ctx, c); err != nil {
		return t, err
	}
	if err := b.quiet(ctx); err != nil {
		return t, err
	}
	if t.burst, err = b.undisturbed(ctx, c, [][]string{names("burst", b.pods)}); err != nil {
		return t, fmt.Errorf("measuring a burst with %s: %w", c.name, err)
	}
	var singles [][]string
	for i := range b.singles {
		singles = append(singles, names(fmt.Sprintf("single%d", i), 1))
	}
	if t.single, err = b.undisturbed(ctx, c, singles); err != nil {
		return t, fmt.Errorf("measuring single pods with %s: %w", c.name, err)
	}
	return t, b.forgotten(ctx)
}

// disturbed is the error of a measurement that something else was a part of.
type disturbed struct{ what string }

func (d disturbed) Error() string { return d.what }

// undisturbed measures until nothing else was counted: the removal of sandboxes,
// once a minute, may come in between.
func (b *bench) undisturbed(ctx context.Context, c contender, groups [][]string) (part, error) {
	for attempt := 1; ; attempt++ {
		p, err := b.measure(ctx, c, groups)
		var d disturbed
		if err == nil || !errors.As(err, &d) || attempt == 3 {
			return p, err
		}
		fmt.Fprintf(b.out, "%s: again … ", d.what)
		if err := b.forgotten(ctx); err != nil {
			return p, err
		}
	}
}

// measure starts groups of pods, one group after the other, and then deletes
// them in the same way. The error is [disturbed] if the node attached or detached
// anything else meanwhile.
func (b *bench) measure(ctx context.Context, c contender, groups [][]string) (p part, err error) {
	pods := 0
	for _, g := range groups {
		pods += len(g)
	}
	attached, err := b.node.attachments()
	if err != nil {
		return p, err
	}
	before, err := b.node.metrics()
	if err != nil {
		return p, err
	}
	for _, g := range groups {
		ready, err := b.start(ctx, g)
		if err != nil {
			return p, err
		}
		p.ready = append(p.ready, ready)
	}
	between, err := b.node.metrics()
	if err != nil {
		return p, err
	}
	now, err := b.node.attachments()
	if err != nil {
		return p, err
	}
	if err := onlyBy(c.network, pods, attached, now); err != nil {
		return p, err
	}
	for _, g := range groups {
		gone, err := b.end(group(g[0]))
		if err != nil {
			return p, err
		}
		p.gone = append(p.gone, gone)
	}
	after, err := b.node.metrics()
	if err != nil {
		return p, err
	}
	p.add, p.network, p.sandbox = between.since(before, cniAdd), between.since(before, networkReady), between.since(before, sandboxRun)
	p.del, p.stop = after.since(between, cniDel), after.since(between, sandboxStop)
	for _, counted := range []struct {
		what string
		work
	}{{"CNI ADD", p.add}, {"network ready", p.network}, {"sandbox", p.sandbox}, {"CNI DEL", p.del}, {"sandbox stopped", p.stop}} {
		if counted.count != pods {
			return p, disturbed{fmt.Sprintf("%s was counted %d times for %d pods", counted.what, counted.count, pods)}
		}
	}
	return p, nil
}

// forgotten waits until containerd has forgotten the pods that were measured.
// The kubelet has it remove sandboxes once a minute, and containerd detaches
// each again for that, with the configuration that it has then.
func (b *bench) forgotten(ctx context.Context) error {
	return until(ctx, 3*time.Minute, "the removal of sandboxes on "+b.node.name, func() error {
		count, err := b.node.containers()
		if err == nil && count > b.containers {
			err = fmt.Errorf("%d containers and sandboxes, %d before the first pod", count, b.containers)
		}
		return err
	})
}
