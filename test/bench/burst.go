package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// measureBurst attaches many pods at once to a fresh node, then detaches them, as
// after the start of a node or with a large job.
func measureBurst(ctx context.Context, b *bench) (section, error) {
	names := []string{"flatnet", "ptp", "floor"}
	adds, dels, both := map[string]sample{}, map[string]sample{}, map[string]sample{}
	for range b.amount.bursts {
		for _, c := range b.present([]contender{
			b.flatnet("flatnet", single, false), b.ptp("ptp", single, false), b.stub("floor"),
		}) {
			add, del, err := burst(ctx, b, c)
			if err != nil {
				return section{}, err
			}
			adds[c.name], dels[c.name] = append(adds[c.name], add), append(dels[c.name], del)
			both[c.name] = append(both[c.name], add+del)
		}
	}
	n := b.amount.pods
	perSecond := func(s sample) string {
		if len(s) == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f", rate(n, s.median()))
	}
	shown := table{head: []string{
		fmt.Sprintf("%d pods, %d at a time", n, b.amount.atOnce), "ADD, pods/s", "DEL, pods/s", "ADD and DEL, pods/s", "runs",
	}}
	for _, name := range names {
		shown.rows = append(shown.rows, []string{
			name, perSecond(adds[name]), perSecond(dels[name]), perSecond(both[name]), fmt.Sprint(len(both[name])),
		})
	}
	return section{table: shown, ratios: []ratio{
		atLeast("pods/s, flatnet / ptp", n, both["flatnet"], both["ptp"], 2.5),
		atLeast("pods/s, flatnet / floor", n, both["flatnet"], both["floor"], 0),
	}}, nil
}

// atLeast compares how many pods a second two samples stand for with a limit, 0 if
// there is none.
func atLeast(what string, n int, ours, theirs sample, limit float64) ratio {
	r := ratio{what: what}
	if limit > 0 {
		r.target = fmt.Sprintf("≥ %g", limit)
	}
	if len(ours) > 0 && len(theirs) > 0 {
		quotient := rate(n, ours.median()) / rate(n, theirs.median())
		r.shown, r.met = fmt.Sprintf("%.2f", quotient), quotient >= limit
	}
	return r
}

// burst returns how long it took to attach, and to detach, all pods of a fresh node.
func burst(ctx context.Context, b *bench, c contender) (add, del time.Duration, err error) {
	s := newSite()
	defer s.Close()
	r, err := b.runner(s, c, nil)
	if err != nil {
		return 0, 0, err
	}
	pods := s.podsFor(b.amount.pods)
	if add, err = each(pods, b.amount.atOnce, func(p pod) error { _, err := r.add(ctx, p); return err }); err != nil {
		return 0, 0, err
	}
	del, err = each(pods, b.amount.atOnce, func(p pod) error { _, err := r.del(ctx, p); return err })
	return add, del, err
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

// rate is how many of n pods there were in a second.
func rate(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }
