package main

import (
	"fmt"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
)

// target is the largest part of the reference's time that flatnet's ADD may
// take in a burst.
const target = 0.5

// column is a figure of a part.
type column struct {
	head string
	of   func(part) time.Duration
	show func(time.Duration) string
}

var columns = []column{
	{"CNI ADD, ms", func(p part) time.Duration { return p.add.mean() }, milliseconds},
	{"network ready, ms", func(p part) time.Duration { return p.network.mean() }, milliseconds},
	{"sandbox, ms", func(p part) time.Duration { return p.sandbox.mean() }, milliseconds},
	{"all ready, s", func(p part) time.Duration { return page.Quantile(p.ready, 0.5) }, seconds},
	{"CNI DEL, ms", func(p part) time.Duration { return p.del.mean() }, milliseconds},
	{"sandbox stopped, ms", func(p part) time.Duration { return p.stop.mean() }, milliseconds},
	{"all gone, s", func(p part) time.Duration { return page.Quantile(p.gone, 0.5) }, seconds},
}

// kind is one of the two ways in which pods were started.
type kind struct {
	name string
	of   func(turn) part
}

// section shows what was measured as Markdown: figures, and flatnet's beside
// the reference's. ours and theirs are of the same rounds.
func section(ours, theirs contender, found map[string][]turn, pods int) string {
	kinds := []kind{
		{fmt.Sprintf("%d pods at once", pods), func(t turn) part { return t.burst }},
		{"one pod", func(t turn) part { return t.single }},
	}
	head := []string{"median (least–most)"}
	for _, c := range columns {
		head = append(head, c.head)
	}
	var figures [][]string
	for _, k := range kinds {
		for _, who := range []contender{ours, theirs} {
			row := []string{k.name + ", " + who.name}
			for _, c := range columns {
				row = append(row, spread(values(found[who.name], k, c), c.show))
			}
			figures = append(figures, row)
		}
		row := []string{k.name + ", " + ours.name + " / " + theirs.name}
		for _, c := range columns {
			row = append(row, spread(compare(values(found[ours.name], k, c), values(found[theirs.name], k, c)), two))
		}
		figures = append(figures, row)
	}
	burst := compare(values(found[ours.name], kinds[0], columns[0]), values(found[theirs.name], kinds[0], columns[0]))
	verdict := []string{
		fmt.Sprintf("CNI ADD, %s, %s / %s", kinds[0].name, ours.name, theirs.name),
		spread(burst, two), fmt.Sprintf("≤ %g", target), reached(burst),
	}
	return page.Table(head, figures) + "\n" + page.Table([]string{"", "measured", "target", "reached"}, [][]string{verdict})
}

// values are one figure of each turn.
func values(turns []turn, k kind, c column) []time.Duration {
	all := make([]time.Duration, len(turns))
	for i, t := range turns {
		all[i] = c.of(k.of(t))
	}
	return all
}

// compare divides what was measured in the same round.
func compare(ours, theirs []time.Duration) []float64 {
	quotients := make([]float64, min(len(ours), len(theirs)))
	for i := range quotients {
		quotients[i] = float64(ours[i]) / float64(theirs[i])
	}
	return quotients
}

// reached says whether the median of quotients is within the target.
func reached(quotients []float64) string {
	if page.Quantile(quotients, 0.5) <= target {
		return "yes"
	}
	return "no"
}

// spread shows a sample: its median, and between what it was.
func spread[T float64 | time.Duration](sample []T, show func(T) string) string {
	return fmt.Sprintf("%s (%s–%s)", show(page.Quantile(sample, 0.5)), show(page.Quantile(sample, 0)), show(page.Quantile(sample, 1)))
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 100 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.1f", ms)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

func two(quotient float64) string { return fmt.Sprintf("%.2f", quotient) }
