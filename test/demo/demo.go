package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// demo is one run.
type demo struct {
	*report
	lab   *netlab.Lab
	nodes []*node
	pods  []*pod
	busy  []remains // of each node, while all pods were there
	// summary collects, for the last line, what has been shown.
	summary []string
}

// run shows everything, step by step, and leaves nothing. The first step that
// does not do what it should is the error, as is the end of ctx.
func run(ctx context.Context, w io.Writer, plugins string) (err error) {
	started := time.Now()
	d := &demo{report: &report{w: w}, lab: netlab.New()}
	defer func() {
		if err != nil && !errors.Is(err, errLeft) {
			err = d.abandon(ctx, err)
		}
		if failure := d.lab.Close(); failure != nil {
			err = errors.Join(err, failure)
		}
	}()
	d.title("flatnet: three nodes, and pods that reach each other without address translation")
	d.text(`Everything here happens in network namespaces that end with this program; this machine's own
network is not touched. "$" marks the command that would do by hand what was just done.`)

	for _, step := range []func(context.Context) error{
		func(context.Context) error { return d.makeNodes() },
		func(context.Context) error { return d.connectNodes() },
		func(ctx context.Context) error { return d.attachPods(ctx, plugins) },
		d.reachPods,
		d.reachNodes,
		d.checkPods,
		d.detachPods,
		func(context.Context) error { return d.lookBack() },
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.text(fmt.Sprintf("Done in %.1f s: %s.", time.Since(started).Seconds(), strings.Join(d.summary, "; ")))
	return nil
}

// abandon takes back what a run that has ended early has made, as a runtime
// would: a DEL for every ADD that was tried. It returns why the run has ended,
// and what went wrong since: [context.Canceled] alone after a clean interruption.
func (d *demo) abandon(ctx context.Context, reason error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		// Whatever failed, failed because of that.
		reason = context.Canceled
		d.heading("Interrupted: cleaning up")
	} else {
		d.heading("Stopped by a failure: cleaning up")
	}
	// The time for this does not depend on what the run was given.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := d.takeBack(ctx); err != nil {
		return errors.Join(reason, fmt.Errorf("cleaning up: %w", err))
	}
	return reason
}

func (d *demo) takeBack(ctx context.Context) error {
	var detached []string
	var errs []error
	for _, p := range d.pods {
		if !p.attached {
			continue
		}
		_, err := p.detach(ctx)
		if err != nil {
			// The same Ctrl-C may have met the plugin. A runtime tries again, too.
			_, err = p.detach(ctx)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		detached = append(detached, p.name)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := d.disconnectNodes(); err != nil {
		return err
	}
	counts, err := d.countAll()
	if err != nil {
		return err
	}
	if err := nothing(d.nodes, counts); err != nil {
		return err
	}
	if len(detached) > 0 {
		d.text("DEL for the pods whose ADD had begun: " + strings.Join(detached, ", ") + ".")
	}
	d.text("Nothing is left.")
	return nil
}
