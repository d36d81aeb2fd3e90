package agent

import (
	"errors"
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// currentProblems are all that keeps the network from being as it should, the
// most general first, and below each what follows from it.
func (a *Agent) currentProblems() []problem.Problem { return problem.Fold(a.everyProblem()) }

// everyProblem is what every part says by itself.
func (a *Agent) everyProblem() []problem.Problem {
	var all []problem.Problem
	add := func(p ...problem.Problem) { all = append(all, p...) }
	if err := a.source.Check(); err != nil {
		add(a.sourceProblem(err))
	}
	add(a.kernelProblems()...)
	add(a.taskProblems()...)
	for _, r := range a.refused {
		add(r.Problem(a.config.NodeName))
	}
	if a.services != nil {
		add(a.services.problems()...)
	}
	if a.plan == nil {
		return all
	}
	add(a.plan.Problems...)
	if len(a.plan.OwnPodCIDRs) == 0 {
		add(problem.NoPodCIDR.Of(problem.Facts{
			Node: a.config.NodeName, Reason: "has no usable podCIDR: the plugin's configuration is not written, and pods are not started",
			Needs: []problem.Thing{problem.OwnPodCIDRs},
		}))
	}
	add(a.engine.Problems(a.config.NodeName)...)
	for _, p := range a.plan.Peers {
		add(p.Problems...)
	}
	add(a.outsideProblem()...)
	add(host.Problems(a.config.NodeName, a.findings)...)
	add(install.Problems(a.config.NodeName, a.disk)...)
	return all
}

// sourceProblem says why the list of nodes is not up to date.
func (a *Agent) sourceProblem(err error) problem.Problem {
	f := problem.Facts{Object: "source of nodes", Reason: err.Error()}
	if a.config.NodesFile != "" {
		f.Advice = fmt.Sprintf("correct %s: it is read again by itself, and what was known before stays in force until then", a.config.NodesFile)
	} else {
		f.Breaks = []problem.Thing{problem.API}
		f.Advice = "see to it that the node reaches the API server, and that flatnetd may list and watch nodes (deploy/base/rbac.yaml); what was known before stays in force until then"
	}
	return problem.NodesSource.Of(f)
}

// logProblems logs each problem when it comes up or has another reason, and once
// more when it is over. What follows from another is not logged by itself, unless
// it stays when that is over.
func (a *Agent) logProblems() { a.told.tell(a.log, a.currentProblems()) }

// unready says why the node cannot serve pods yet, or no longer knows what it
// should; nil where all is well.
func (a *Agent) unready() error {
	switch {
	case a.nodes == nil:
		if err := a.source.Check(); err != nil {
			return fmt.Errorf("nodes are not known yet: %w", err)
		}
		return errors.New("nodes are not known yet")
	case a.report.Lacks(requirements.Pods):
		return errors.New(a.report.Of(requirements.Pods)[0].String())
	case a.plan == nil:
		return fmt.Errorf("the fabric is not planned yet: %w", a.errors[joinTask])
	case !a.joined:
		for _, p := range problem.Fold(a.engine.Problems(a.config.NodeName)) {
			return fmt.Errorf("the fabric has not been made yet: %s", p)
		}
		return errors.New("the fabric has not been made yet")
	case len(a.plan.OwnPodCIDRs) == 0:
		return fmt.Errorf("node %s has no podCIDR yet", a.config.NodeName)
	case !a.done[masqueradeTask]:
		return errors.New("masquerading is not set up yet")
	case !a.done[installTask]:
		if err := a.errors[installTask]; err != nil {
			return err
		}
		return errors.New("the plugin is not installed yet")
	}
	if err := a.source.Check(); err != nil {
		return fmt.Errorf("nodes may have changed since: %w", err)
	}
	if a.services != nil {
		return a.services.unready()
	}
	return nil
}
