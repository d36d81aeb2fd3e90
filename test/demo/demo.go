package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/report"
)

// demo is one run.
type demo struct {
	*report.Report
	lab     *netlab.Lab
	cluster *cluster.Cluster
	nodes   []*cluster.Node
	outside *netlab.Node
	pods    []*cluster.Pod
	busy    []remains // of each node, while all pods were there
	// summary collects, for the end, what has been shown.
	summary []string
}

// run shows everything, step by step, and leaves nothing. The first step that
// does not do what it should is the error, as is the end of ctx.
func run(ctx context.Context, w io.Writer, binaries string) (err error) {
	started := time.Now()
	d := &demo{Report: &report.Report{W: w}, lab: netlab.New()}
	defer func() {
		if err != nil && !errors.Is(err, errLeft) {
			err = d.abandon(ctx, err)
		}
		if failure := d.close(); failure != nil {
			err = errors.Join(err, failure)
		}
	}()
	d.Title("flatnet: pods on three nodes reach each other without address translation")
	d.Text(`Everything here happens in network namespaces that end with this program; this machine's own
network is not touched. "$" marks a command that does the same by hand, or shows it.`)

	err = d.Steps(ctx,
		func(context.Context) error { return d.makeNodes(binaries) },
		d.startAgents,
		d.attachPods,
		d.reachPods,
		d.reachNodes,
		d.killAgent,
		d.detachPods,
		d.cleanUp,
	)
	if err != nil {
		return err
	}
	d.Done(time.Since(started), d.summary)
	return nil
}

// close ends what still runs and removes the namespaces.
func (d *demo) close() error {
	err := d.lab.Close()
	if d.cluster != nil {
		err = errors.Join(err, os.RemoveAll(d.cluster.Directory))
	}
	return err
}

// abandon takes back what a run that has ended early has made. It returns why
// the run has ended, and what went wrong since: [context.Canceled] alone after a
// clean interruption.
func (d *demo) abandon(ctx context.Context, reason error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		// Whatever failed, failed because of that.
		reason = context.Canceled
		d.Heading("Interrupted: cleaning up")
	} else {
		d.Heading("Stopped by a failure: cleaning up")
		d.showLogs()
	}
	for _, n := range d.nodes {
		if _, err := uninstall(n); err != nil {
			// The same Ctrl-C may have met it.
			if _, err = uninstall(n); err != nil {
				return errors.Join(reason, fmt.Errorf("cleaning up: %w", err))
			}
		}
	}
	counts, err := d.countAll()
	if err == nil {
		err = nothing(d.nodes, counts)
	}
	if err != nil {
		return errors.Join(reason, fmt.Errorf("cleaning up: %w", err))
	}
	d.Text("Nothing is left.")
	return reason
}

// showLogs shows the last that every flatnetd has said, for the reader of a
// failure.
func (d *demo) showLogs() {
	const most = 5 // lines
	for _, n := range d.nodes {
		lines := strings.Split(strings.TrimSpace(n.Log()), "\n")
		if lines[0] == "" {
			continue
		}
		d.Text("The last lines of flatnetd's log on " + n.Name + ":")
		d.Indented(strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}

func microseconds(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1e6) }

func outOf(n int) string { return fmt.Sprintf("%d of %d", n, n) }
