package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// harm is what somebody does to a node, as a command of a shell.
type harm struct {
	what, shell string
	took        sample // from its end until everything is as before
}

// harms are done to a node of the overlay that reaches its peers by it.
func harms() []*harm {
	return []*harm{
		{what: "a route to a peer is deleted", shell: "ip route del $(ip route show proto 70 dev flatnet.vx | head -1 | cut -d' ' -f1)"},
		{what: "all routes are flushed", shell: "ip route flush proto 70; ip -6 route flush proto 70"},
		{what: "the overlay's device is deleted", shell: "ip link del flatnet.vx"},
		{what: "its forwarding entries are deleted", shell: "for m in $(bridge fdb show dev flatnet.vx | cut -d' ' -f1); do bridge fdb del $m dev flatnet.vx; done"},
		{what: "forwarding is switched off", shell: "sysctl -qw net.ipv4.ip_forward=0"},
		{what: "the ruleset is flushed", shell: "nft flush ruleset"},
	}
}

// whatIsKept shows what the harms damage, in an order of its own: the kernel's is that
// in which things were made. An index of a device is not kept.
const whatIsKept = `{ ip -4 route show table all proto 70; ip -6 route show table all proto 70
ip -o link show flatnet.vx | cut -d: -f2-; ip -o addr show dev flatnet.vx | cut -d: -f2-; bridge fdb show dev flatnet.vx
cat /proc/sys/net/ipv4/ip_forward; nft list tables; } | sort`

// repairWithin is the target: what somebody damages is repaired within a second.
const repairWithin = time.Second

// measureRepair damages what flatnetd keeps on a node, in turn. flatnetd is told by the
// kernel; it does not look by itself as long as this takes.
func measureRepair(ctx context.Context, b *bench) (section, error) {
	programs, err := filepath.Abs(b.ours)
	if err != nil {
		return section{}, err
	}
	if len(b.present([]contender{{name: "flatnetd", directory: programs, programs: []string{"flatnetd", "flatnet"}}})) == 0 {
		return section{}, nil
	}
	lab := netlab.New()
	defer lab.Close()
	l := newLarge(lab, programs, "vxlan", b.amount.clusters[0])
	l.flags = append(l.flags, "--resync", "24h")
	if err := l.begin(); err != nil {
		return section{}, err
	}
	intact, err := l.steady()
	if err != nil {
		return section{}, err
	}
	all := harms()
	for range b.amount.repairs {
		for _, h := range all {
			if err := ctx.Err(); err != nil {
				return section{}, err
			}
			if err := l.harm(h, intact); err != nil {
				return section{}, err
			}
		}
	}
	var ends sample
	for range b.amount.repairs {
		ends = append(ends, l.node.Stop())
		l.start()
	}
	return section{table: repairTable(all, ends), ratios: repairRatios(all)}, nil
}

// kept is what there is of whatIsKept.
func (l *large) kept() (string, error) { return l.node.Output("sh", "-c", whatIsKept) }

// steady waits until flatnetd has made everything, and returns what that is.
func (l *large) steady() (text string, err error) {
	_, err = pace.Await(pace.Far(), func() error {
		before := text
		if text, err = l.kept(); err == nil && (text != before || !strings.Contains(text, "table inet flatnet\n")) {
			err = errors.New("flatnetd still makes what it keeps")
		}
		return err
	})
	return text, err
}

// harm does harm once, and notes how long it lasts.
func (l *large) harm(h *harm, intact string) error {
	if out, err := l.node.Output("sh", "-ec", h.shell); err != nil {
		return fmt.Errorf("damaging (%s): %w: %s", h.what, err, out)
	}
	took, err := pace.Await(pace.Far(), func() error {
		text, err := l.kept()
		if err == nil && text != intact {
			err = fmt.Errorf("it is not as before, which was\n%s\nbut\n%s", intact, text)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("waiting for the repair (%s): %w", h.what, err)
	}
	h.took = append(h.took, took)
	return nil
}

func repairTable(all []*harm, ends sample) table {
	t := table{head: []string{"", "median, ms", "p90"}}
	row := func(what string, s sample) {
		t.rows = append(t.rows, []string{what, milliseconds(s.median()), milliseconds(s.quantile(0.9))})
	}
	for _, h := range all {
		row("repaired: "+h.what, h.took)
	}
	row("ended after SIGTERM", ends)
	return t
}

func repairRatios(all []*harm) []ratio {
	var ratios []ratio
	for _, h := range all {
		value := h.took.median()
		ratios = append(ratios, ratio{
			what: h.what + ": repaired", shown: milliseconds(value) + " ms",
			target: fmt.Sprintf("< %g s", repairWithin.Seconds()), met: value < repairWithin,
		})
	}
	return ratios
}
