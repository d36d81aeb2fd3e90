package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// sayGoodbye takes flatnet off the nodes: routers know nothing of them any more.
func (d *demo) sayGoodbye(ctx context.Context) error {
	var said string
	for i, n := range d.racks.Nodes {
		text, err := d.uninstall(n)
		if err != nil {
			return err
		}
		if i == 0 {
			said = text
		}
	}
	_, err := pace.Await(pace.Far(), func() error {
		for _, r := range d.racks.Routers() {
			question := "show bgp ipv4"
			if r.IsBIRD {
				question = "show route table master4"
			}
			text, err := r.Ask(question)
			if err != nil || strings.Contains(text, "10.244.") || strings.Contains(text, balancer) {
				return errors.Join(fmt.Errorf("%s still knows of pods: %s", r.Name, text), err, ctx.Err())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.Heading("What is left")
	d.Text("`flatnetd cleanup` tells routers that there is nothing any more, before it takes flatnet off the\nnode. On n1 it says:")
	lines := strings.Split(strings.TrimSpace(said), "\n")
	const most = 8
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("(and %d more)", len(lines)-most))
	}
	d.Indented(narrow(strings.Join(lines, "\n")))
	if err := d.ask(d.racks.B1, "show route table master4"); err != nil {
		return err
	}
	d.summary = append(d.summary, "nothing left, on nodes and in routers' tables")
	return nil
}
