package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// currentProblems are all that keeps the network from being as it should, the
// most general first.
func (a *Agent) currentProblems() []fabric.Problem {
	var all []fabric.Problem
	add := func(p ...fabric.Problem) { all = append(all, p...) }
	if err := a.source.Check(); err != nil {
		add(fabric.Problem{Object: "source of nodes", Reason: err.Error(), Hint: "what was known before stays in force"})
	}
	add(a.kernelProblems()...)
	for t, err := range a.errors {
		if err != nil && task(t) != verifyTask {
			add(fabric.Problem{Node: a.config.NodeName, Object: task(t).String(), Reason: err.Error(), Hint: "it is tried again; flatnetd's log has the history"})
		}
	}
	for _, r := range a.refused {
		add(fabric.Problem{Node: r.Node, Object: r.Field + " " + r.Value, Reason: r.Reason, Hint: r.Hint})
	}
	if a.services != nil {
		add(a.services.problems()...)
	}
	if a.plan == nil {
		return all
	}
	add(a.plan.Problems...)
	if len(a.plan.OwnPodCIDRs) == 0 {
		add(fabric.Problem{
			Node: a.config.NodeName, Reason: "has no usable podCIDR: the plugin's configuration is not written, and pods are not started",
			Hint: "Kubernetes assigns one if the controller manager runs with --allocate-node-cidrs; otherwise give the node one",
		})
	}
	for _, p := range a.plan.Peers {
		add(p.Problems...)
	}
	for _, f := range a.engine.Failures() {
		hint := "look at the kernel's log (dmesg) and at what else manages routes on this node"
		if fabric.IsConflict(f.Err) {
			hint = "somebody else made it; remove that, or give flatnet other podCIDRs"
		}
		add(fabric.Problem{Node: a.config.NodeName, Object: f.Change.String(), Reason: reasonOf(f), Hint: hint})
	}
	add(a.outsideProblem()...)
	for _, f := range a.findings {
		if f.Problem != "" {
			add(fabric.Problem{Node: a.config.NodeName, Object: f.Object, Reason: fmt.Sprintf("is %s instead of %s: %s", f.Found, f.Wanted, f.Problem), Hint: f.Hint})
		}
	}
	for _, f := range a.disk {
		add(fabric.Problem{Node: a.config.NodeName, Object: f.Path, Reason: f.What, Hint: f.Advice})
	}
	return all
}

// reasonOf is why the kernel refused a change, without the change, which the
// problem names already.
func reasonOf(f fabric.Failure) string {
	return strings.Replace(f.Err.Error(), f.Change.String()+": ", "", 1)
}

// logProblems logs each problem when it comes up, and once more when it is over.
func (a *Agent) logProblems() {
	now := map[string]bool{}
	for _, p := range a.currentProblems() {
		text := p.String()
		if now[text] = true; !a.problems[text] && len(now) <= mostProblemsLogged {
			a.log.Warn("problem", "concerns", p.Node, "object", p.Object, "reason", p.Reason, "hint", p.Hint)
		}
	}
	var over []string
	for text := range a.problems {
		if !now[text] {
			over = append(over, text)
		}
	}
	slices.Sort(over)
	for i, text := range over {
		if i == mostProblemsLogged {
			break
		}
		a.log.Info("problem is over", "problem", text)
	}
	a.problems = now
}

// mostProblemsLogged bounds the lines for one mistake in a long list of nodes;
// the status has all.
const mostProblemsLogged = 50

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
