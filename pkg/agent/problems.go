package agent

import (
	"cmp"
	"errors"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// currentProblems are all that keeps the network from being as it should, the
// most general first, and below each what follows from it.
func (a *Agent) currentProblems() []problem.Problem { return problem.Fold(a.everyProblem()) }

// everyProblem is what every feature says by itself, by how general it is.
func (a *Agent) everyProblem() (all []problem.Problem) {
	for _, t := range a.schedule {
		var told feature.Told
		if err := t.Err(); err != nil && !errors.As(err, &told) {
			all = append(all, problem.TaskFailed.Of(problem.Facts{
				Node: a.config.NodeName, Object: "task " + t.Name, Reason: err.Error(), Advice: t.Advice + "; it is tried again by itself", Breaks: t.Breaks,
			}))
		}
	}
	for _, f := range a.features {
		if f.Problems != nil {
			all = append(all, f.Problems()...)
		}
	}
	slices.SortStableFunc(all, func(a, b problem.Problem) int { return cmp.Compare(a.Kind(), b.Kind()) })
	return all
}

// logProblems logs each problem when it comes up or has another reason, and once
// more when it is over. What follows from another is not logged by itself, unless
// it stays when that is over.
func (a *Agent) logProblems() { a.told.tell(a.log, a.currentProblems()) }

// unready says why the node cannot serve pods yet, or no longer knows what it
// should; nil where all is well.
func (a *Agent) unready() error {
	for _, f := range a.features {
		if f.Ready != nil {
			if err := f.Ready(); err != nil {
				return err
			}
		}
	}
	for _, f := range a.features {
		if f.UpToDate != nil {
			if err := f.UpToDate(); err != nil {
				return err
			}
		}
	}
	return nil
}
