package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/processor"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// measureScale runs flatnetd on a node of clusters of several sizes. All are measured
// one after the other, and then all are idle together.
func measureScale(ctx context.Context, b *bench) (section, error) {
	programs, err := filepath.Abs(b.ours)
	if err != nil {
		return section{}, err
	}
	if len(b.present([]contender{{name: "flatnetd", directory: programs, programs: []string{"flatnetd", "flatnet"}}})) == 0 {
		return section{}, nil
	}
	var labs []*netlab.Lab
	defer func() {
		for _, lab := range labs {
			lab.Close()
		}
	}()
	var all []*large
	most := b.amount.clusters[len(b.amount.clusters)-1]
	begin := func(mode string, n int, prepare func(*large) error) error {
		lab := netlab.New()
		labs = append(labs, lab)
		l := newLarge(lab, programs, mode, n)
		all = append(all, l)
		if err := prepare(l); err != nil {
			return err
		}
		if err := l.begin(); err != nil {
			return err
		}
		return l.change(b.amount.changes)
	}
	for _, mode := range []string{"direct", "vxlan"} {
		for _, n := range b.amount.clusters {
			if err := begin(mode, n, func(*large) error { return nil }); err != nil {
				return section{}, err
			}
		}
	}
	for _, streams := range []bool{true, false} {
		err := begin("direct", most, func(l *large) error {
			l.name += " of Kubernetes"
			if !streams {
				l.name += " before 1.32"
			}
			return l.fromKubernetes(streams)
		})
		if err != nil {
			return section{}, err
		}
	}
	if err := beIdle(ctx, all, b.amount.idle); err != nil {
		return section{}, err
	}
	for _, l := range all {
		l.again()
	}
	return section{table: scaleTable(all), compared: scaleChart(all), ratios: scaleRatios(all, most)}, nil
}

// beIdle measures what all of them take while nothing happens that concerns them.
func beIdle(ctx context.Context, all []*large, during time.Duration) error {
	living, end := context.WithCancel(ctx)
	defer end()
	before := make([]time.Duration, len(all))
	for i, l := range all {
		var err error
		if before[i], err = processor.Time(l.node.Pid()); err != nil {
			return err
		}
		if l.live != nil {
			go l.live(living)
		}
	}
	begin := time.Now()
	select {
	case <-time.After(during):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i, l := range all {
		after, err := processor.Time(l.node.Pid())
		if err != nil {
			return err
		}
		l.cpu = 100 * (after - before[i]).Seconds() / time.Since(begin).Seconds()
		if l.idle, l.top, err = memoryOf(l.node.Pid()); err != nil {
			return err
		}
	}
	return nil
}

func scaleTable(all []*large) table {
	t := table{head: []string{
		"mode, nodes", "first sync, s", "of that joining, ms", "restart, s", "a change, ms", "p90", "from file to route, ms", "p90",
		"idle, % of a CPU", "MB after sync", "after changes", "idle", "most",
	}}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
	for _, l := range all {
		t.rows = append(t.rows, []string{
			l.name, seconds(l.first), milliseconds(l.join), seconds(l.restart),
			milliseconds(l.joins.median()), milliseconds(l.joins.quantile(0.9)), milliseconds(l.ends.median()), milliseconds(l.ends.quantile(0.9)),
			fmt.Sprintf("%.2f", l.cpu), l.began.String(), l.changed.String(), l.idle.String(), l.top.String(),
		})
	}
	return t
}

// scaleChart shows how four of the figures grow: a full bar is the target.
func scaleChart(all []*large) table {
	t := table{head: []string{"of the target"}}
	for _, g := range goals {
		t.head = append(t.head, g.name)
	}
	for _, l := range all {
		row := []string{l.name}
		for _, g := range goals {
			row = append(row, bar(g.of(l)/g.limit))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// bar is as long as a share of one; what is more than that has an arrow.
func bar(share float64) string {
	const full = 10
	n := int(share*full + 0.5)
	if n > full {
		return strings.Repeat("█", full) + "▶"
	}
	return strings.Repeat("█", n) + strings.Repeat("░", full-n) + " "
}

// goal is a figure that must stay below a limit, in some unit.
type goal struct {
	name, unit string
	limit      float64
	of         func(*large) float64
}

var goals = []goal{
	{"first sync", "s", 3, func(l *large) float64 { return l.first.Seconds() }},
	{"a change", "ms", 20, func(l *large) float64 { return 1e3 * l.joins.median().Seconds() }},
	{"idle CPU", "%", 1, func(l *large) float64 { return l.cpu }},
	{"memory", "MB", 80, func(l *large) float64 { return float64(max(l.began, l.changed, l.idle)) / megabyte }},
}

// scaleRatios compares those with most nodes with the goals.
func scaleRatios(all []*large, most int) []ratio {
	var ratios []ratio
	for _, l := range all {
		if l.population.n != most {
			continue
		}
		for _, g := range goals {
			value := g.of(l)
			ratios = append(ratios, ratio{
				what: l.name + ": " + g.name, shown: fmt.Sprintf("%s %s", digits(value), g.unit),
				target: fmt.Sprintf("< %g %s", g.limit, g.unit), met: value < g.limit,
			})
		}
	}
	return ratios
}
