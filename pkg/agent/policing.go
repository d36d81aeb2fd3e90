package agent

import (
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// policing is what there is to know of how policies are kept.
type policing struct {
	node    string
	summary policy.Summary
	lost    error // why the source is not up to date
	unread  []policy.Unread
}

func (b policing) problems() (all []problem.Problem) {
	add := func(kind problem.Kind, f problem.Facts) {
		f.Node = b.node
		all = append(all, kind.Of(f))
	}
	if b.lost != nil {
		add(problem.PoliciesSource, problem.Facts{Object: "source of policies", Reason: strings.ReplaceAll(b.lost.Error(), "\n", "; "), Needs: []problem.Thing{problem.API}})
	}
	if b.summary.Failure != "" {
		add(problem.PoliciesRules, problem.Facts{Object: "rules of policies", Reason: b.summary.Failure})
	}
	for _, l := range b.summary.Lacks {
		add(problem.PoliciesFeature, problem.Facts{Object: l.Object, Reason: l.Reason, Advice: l.Advice})
	}
	for _, f := range b.summary.Faults {
		add(problem.PolicyFault, problem.Facts{Object: f.Policy, Reason: f.Fault})
	}
	for _, one := range b.unread {
		add(problem.PolicyFault, problem.Facts{Object: one.Object, Reason: one.Why})
	}
	return all
}
