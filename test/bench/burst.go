package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// stint is how long all pods of a burst took.
type stint struct{ add, del time.Duration }

func (s stint) both() time.Duration { return s.add + s.del }

// measureBurst attaches many pods at once to a fresh node, then detaches them, as
// after the start of a node or with a large job.
func measureBurst(ctx context.Context, b *bench) (section, error) {
	names := []string{"flatnet", "ptp", "floor"}
	contenders := b.present([]contender{
		b.flatnet("flatnet", single, false), b.ptp("ptp", single, false), b.stub("floor"),
	})
	found := map[string][]stint{}
	dice := rand.New(rand.NewPCG(70, 70))
	for range b.amount.bursts {
		for _, i := range dice.Perm(len(contenders)) {
			took, err := burst(ctx, b, contenders[i])
			if err != nil {
				return section{}, err
			}
			found[contenders[i].name] = append(found[contenders[i].name], took)
		}
	}
	n := b.amount.pods
	shown := table{head: []string{
		fmt.Sprintf("%d pods, %d at a time", n, b.amount.atOnce), "ADD, pods/s", "DEL, pods/s", "ADD and DEL, pods/s", "runs",
	}}
	for _, name := range names {
		row := []string{name}
		for _, of := range []func(stint) time.Duration{
			func(s stint) time.Duration { return s.add }, func(s stint) time.Duration { return s.del }, stint.both,
		} {
			row = append(row, podsPerSecond(n, found[name], of))
		}
		shown.rows = append(shown.rows, append(row, fmt.Sprint(len(found[name]))))
	}
	return section{table: shown, ratios: []ratio{
		faster("pods/s, flatnet / ptp", found["flatnet"], found["ptp"], 2.5),
		faster("pods/s, flatnet / floor", found["flatnet"], found["floor"], 0),
		faster("pods/s, floor / ptp", found["floor"], found["ptp"], 0),
	}}, nil
}

// podsPerSecond is the median of a part of all bursts.
func podsPerSecond(n int, bursts []stint, of func(stint) time.Duration) string {
	if len(bursts) == 0 {
		return ""
	}
	var part sample
	for _, s := range bursts {
		part = append(part, of(s))
	}
	return fmt.Sprintf("%.0f", float64(n)/part.median().Seconds())
}

// faster compares how many pods a second there were with a limit, 0 if there is none.
// It compares within each round, and takes the median of that: a burst lasts long
// enough for the machine to become another one between two rounds.
func faster(what string, ours, theirs []stint, limit float64) ratio {
	r := ratio{what: what}
	if limit > 0 {
		r.target = fmt.Sprintf("≥ %g", limit)
	}
	var quotients []float64
	for i := range min(len(ours), len(theirs)) {
		quotients = append(quotients, theirs[i].both().Seconds()/ours[i].both().Seconds())
	}
	if len(quotients) == 0 {
		return r
	}
	slices.Sort(quotients)
	median := quotients[(len(quotients)-1)/2]
	r.shown, r.met = figure(median), median >= limit
	return r
}

// burst returns how long it took to attach, and to detach, all pods of a fresh node.
func burst(ctx context.Context, b *bench, c contender) (stint, error) {
	s := newSite()
	defer s.Close()
	r, err := b.runner(s, c, nil)
	if err != nil {
		return stint{}, err
	}
	pods := s.podsFor(b.amount.pods)
	var took stint
	if took.add, err = each(pods, b.amount.atOnce, func(p pod) error { _, err := r.add(ctx, p); return err }); err != nil {
		return stint{}, err
	}
	took.del, err = each(pods, b.amount.atOnce, func(p pod) error { _, err := r.del(ctx, p); return err })
	return took, err
}

// each calls f for every pod, so many at a time, and returns how long that took.
func each(pods []pod, atOnce int, f func(pod) error) (time.Duration, error) {
	queue := make(chan pod, len(pods))
	for _, p := range pods {
		queue <- p
	}
	close(queue)
	errs := make([]error, atOnce)
	start := time.Now()
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			for p := range queue {
				if errs[i] = f(p); errs[i] != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	return time.Since(start), errors.Join(errs...)
}
