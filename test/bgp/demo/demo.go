package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/racks"
	"github.com/flatnet-cni/flatnet/test/report"
)

// demo is one run.
type demo struct {
	*report.Report
	lab   *netlab.Lab
	racks *racks.Racks
	pods  []*cluster.Pod // of n1, and of n2
	api   *apiserver.Server
	// summary collects, for the end, what has been shown.
	summary []string
}

// run shows everything, step by step, and leaves nothing. The first step that does not do
// what it should is the error, as is the end of ctx.
func run(ctx context.Context, w io.Writer, binaries string) (err error) {
	started := time.Now()
	d := &demo{Report: &report.Report{W: w}, lab: netlab.New()}
	defer func() {
		if err != nil {
			err = d.abandon(ctx, err)
		}
		err = errors.Join(err, d.close())
		if errors.Is(err, context.Canceled) {
			err = context.Canceled
		}
	}()
	if err := d.routersThere(); err != nil {
		return err
	}
	d.Title("flatnet: routers know the pods, by BGP")
	d.Text(`Everything here happens in network namespaces that end with this program; this machine's own
network is not touched. "$" marks a command that was run in the namespace before it.`)
	err = d.Steps(ctx,
		func(context.Context) error { return d.makeRacks(binaries) },
		d.speak,
		d.reachPods,
		d.reachFromOutside,
		d.loseRouter,
		d.restartAgent,
		d.sayGoodbye,
	)
	if err != nil {
		return err
	}
	d.Done(time.Since(started), d.summary)
	return nil
}

// routersThere says what is missing before anything is made.
func (d *demo) routersThere() error {
	if os.Geteuid() != 0 {
		return errors.New("FRR begins as root: run `make demo-bgp` as root")
	}
	for _, program := range []string{racks.BIRD, racks.BGPD} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("a router is missing: `test/prepare.sh bgp` installs BIRD and FRR on Debian: %w", err)
		}
	}
	return nil
}

// close ends what still runs and removes the namespaces.
func (d *demo) close() error {
	if d.api != nil {
		d.api.Stop()
	}
	if d.racks != nil {
		for _, r := range d.racks.Routers() {
			if r != nil {
				r.Kill()
			}
		}
	}
	err := d.lab.Close()
	if d.racks != nil {
		err = errors.Join(err, os.RemoveAll(d.racks.Directory))
	}
	return err
}

// abandon takes back what a run that has ended early has made on nodes. It returns why the
// run has ended, and what went wrong since.
func (d *demo) abandon(ctx context.Context, reason error) error {
	if d.racks == nil {
		return reason
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		reason = context.Canceled // whatever failed, failed because of that
		d.Heading("Interrupted: cleaning up")
	} else {
		d.Heading("Stopped by a failure: cleaning up")
		for _, n := range d.racks.Nodes {
			lines := strings.Split(strings.TrimSpace(n.Log()), "\n")
			d.Text("The last lines of flatnetd's log on " + n.Name + ":")
			d.Indented(strings.Join(lines[max(0, len(lines)-5):], "\n"))
		}
	}
	for _, n := range d.racks.Nodes {
		if _, err := d.uninstall(n); err != nil {
			// The same Ctrl-C may have met it.
			if _, err = d.uninstall(n); err != nil {
				return errors.Join(reason, fmt.Errorf("cleaning up: %w", err))
			}
		}
	}
	d.Text("Nothing is left.")
	return reason
}

// uninstall ends a node's flatnetd, if it runs, and removes what flatnet has made there. It
// fails where anything is left, and returns what flatnetd cleanup says.
func (d *demo) uninstall(n *cluster.Node) (string, error) {
	stopped := netlab.Guarded(func() error {
		n.Stop()
		return nil
	})
	said, err := n.Flatnetd("cleanup")
	if err != nil {
		return said, fmt.Errorf("cleaning up %s: %w", n.Name, err)
	}
	for _, question := range [][]string{{"route", "show", "table", "all", "proto", "70"}, {"-6", "route", "show", "table", "all", "proto", "70"}, {"link", "show", "group", "70"}} {
		left, err := n.Output("ip", question...)
		if err != nil || left != "" {
			return said, fmt.Errorf("%s has left: %s (%v)", n.Name, left, err)
		}
	}
	return said, stopped
}

// shown runs a command and shows it with what it says.
func (d *demo) shown(n *netlab.Namespace, name, program string, arguments ...string) error {
	text, err := n.Output(program, arguments...)
	if err != nil {
		return err
	}
	d.says(name, program+" "+strings.Join(arguments, " "), text)
	return nil
}

// says shows what a command has said.
func (d *demo) says(name, command, text string) {
	d.Indented(name + "$ " + command + "\n" + strings.TrimSpace(text))
}

// ask shows what a router says.
func (d *demo) ask(r *racks.Router, question string) error {
	text, err := r.Ask(question)
	if err != nil {
		return fmt.Errorf("asking %s: %w: %s", r.Name, err, text)
	}
	command := `vtysh -c "` + question + `"`
	if r.IsBIRD {
		command = "birdc " + question
	}
	d.says(r.Name, command, narrow(text))
	return nil
}

// narrow breaks lines, between words, that are longer than what is left of 100 columns.
func narrow(text string) string {
	const most, indent = 96, "    "
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \r\n")
		for len(line) > most {
			end := strings.LastIndex(line[:most+1], " ")
			if end <= len(indent) {
				break // one word
			}
			lines = append(lines, strings.TrimRight(line[:end], " "))
			line = indent + strings.TrimLeft(line[end:], " ")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
