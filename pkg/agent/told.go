package agent

import (
	"log/slog"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// told are the sentences of the problems that were logged, by what the problems
// are about: another reason is no other problem.
type told map[string][]string

// mostProblemsLogged bounds the lines for one mistake in a long list of nodes;
// the status has all.
const mostProblemsLogged = 50

// tell logs the problems that were not told yet, and those that are over.
func (t told) tell(log *slog.Logger, problems []problem.Problem) {
	now, consequences := told{}, map[string]bool{}
	var news []problem.Problem
	for _, p := range problems {
		key := p.Key()
		now[key] = append(now[key], p.String())
		if !slices.Contains(t[key], p.String()) {
			news = append(news, p)
		}
		for _, f := range p.Follows() {
			consequences[f.Key()] = true
		}
	}
	over := t.over(now, consequences)
	for _, p := range news[:min(mostProblemsLogged, len(news))] {
		log.Warn("problem", "kind", p.Kind().String(), "concerns", p.Node(), "object", p.Object(), "reason", p.Reason(), "advice", p.Advice(), "consequences", len(p.Follows()))
	}
	for _, text := range over[:min(mostProblemsLogged, len(over))] {
		log.Info("problem is over", "problem", text)
	}
	if len(news) > mostProblemsLogged || len(over) > mostProblemsLogged {
		log.Warn("more problems than are logged one by one; flatnetd status has all", "new", len(news), "over", len(over))
	}
	for key := range t {
		// One that follows from another by now is not over, and not told again.
		if now[key] == nil && !consequences[key] {
			delete(t, key)
		}
	}
	for key, sentences := range now {
		t[key] = sentences
	}
}

// over are the sentences of problems that are no more.
func (t told) over(now told, consequences map[string]bool) (all []string) {
	for key, before := range t {
		if consequences[key] {
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return slices.Contains(now[key], s) })
		come := len(now[key]) - (len(before) - len(gone))
		// Who has another reason has taken the place of who is gone.
		all = append(all, gone[min(max(come, 0), len(gone)):]...)
	}
	slices.Sort(all)
	return all
}
