// Package scenarios are tests of a running cluster from its users' point of
// view. They ask with kubectl, as users do.
package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
	"github.com/flatnet-cni/flatnet/test/e2e/report"
)

// Scenario is one test. Run returns what it measured, in a line.
type Scenario struct {
	Group, Name string
	Run         func(*Run) (detail string, err error)
}

// Options of scenarios.
type Options struct {
	// APIOutage is how long the API server is stopped.
	APIOutage time.Duration
	// Build makes programs that only some scenarios need.
	Build func(context.Context, []programs.Program) error
}

// All scenarios, in the order in which they run.
func All(o Options) []Scenario {
	return slices.Concat(tutorial(), addresses(), plugin(), balancers(), life(o))
}

// skipped is the error of a scenario that cannot be run on this cluster.
type skipped string

func (s skipped) Error() string { return string(s) }

// Run is what a scenario works with.
type Run struct {
	context.Context
	Lab *lab.Lab
	// Namespace is of the scenario's group, and removed after it.
	Namespace string

	undo []func() error
}

// after has f called when the scenario has ended, however it ended, the last
// such f first: so the cluster is left as it was. An error fails the scenario.
func (r *Run) after(f func() error) { r.undo = append(r.undo, f) }

// execute runs one scenario and what it leaves to be done after it, also where
// the tests are interrupted.
func (r *Run) execute(s Scenario) (detail string, err error) {
	if err := r.Err(); err != nil {
		return "", err
	}
	detail, err = s.Run(r)
	interruptible := r.Context
	r.Context = context.WithoutCancel(interruptible)
	var left []error
	for _, f := range slices.Backward(r.undo) {
		left = append(left, f())
	}
	r.Context, r.undo = interruptible, nil
	failed := errors.Join(left...)
	if failed == nil {
		return detail, err
	}
	failed = fmt.Errorf("leaving the cluster as it was: %w", failed)
	if err != nil {
		failed = fmt.Errorf("%v\n%w", err, failed) // not %w: it counts as failed also where it was skipped
	}
	return detail, failed
}

// Execute runs the scenarios whose "group: name" matches, says on out what it
// does, and returns what they came to.
func Execute(ctx context.Context, l *lab.Lab, all []Scenario, match *regexp.Regexp, out io.Writer) (results []report.Result) {
	r := &Run{Context: ctx, Lab: l}
	group := ""
	leave := func() {
		if r.Namespace != "" {
			l.Kubectl("delete", "namespace", r.Namespace, "--wait=false")
		}
	}
	defer func() { leave() }()
	for _, s := range all {
		if !match.MatchString(s.Group + ": " + s.Name) {
			continue
		}
		if s.Group != group {
			leave()
			group = s.Group
			r.Namespace = fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.ToLower(s.Group), " ", "-"), time.Now().UnixMilli()%1e6)
			if err := r.namespace(); err != nil {
				return append(results, report.Result{Group: s.Group, Name: "namespace", Outcome: report.Fail, Detail: err.Error()})
			}
		}
		fmt.Fprintf(out, "%s: %s … ", s.Group, s.Name)
		begin := time.Now()
		result := report.Result{Group: s.Group, Name: s.Name, Outcome: report.Pass}
		var err error
		result.Detail, err = r.execute(s)
		result.Duration = time.Since(begin)
		var why skipped
		switch {
		case errors.As(err, &why):
			result.Outcome, result.Detail = report.Skip, why.Error()
		case err != nil:
			result.Outcome, result.Detail = report.Fail, err.Error()
		}
		fmt.Fprintf(out, "%s, %.1f s: %s\n", result.Outcome, result.Duration.Seconds(), result.Detail)
		results = append(results, result)
	}
	return results
}

// namespace makes the group's namespace, and waits for what pods need in it.
func (r *Run) namespace() error {
	if _, err := r.Lab.Kubectl("create", "namespace", r.Namespace); err != nil {
		return err
	}
	return lab.Until(r, 30*time.Second, "service account in namespace "+r.Namespace, func() error {
		_, err := r.kubectl("get", "serviceaccount", "default")
		return err
	})
}

// kubectl runs kubectl in the scenario's namespace.
func (r *Run) kubectl(args ...string) (string, error) {
	return r.Lab.Kubectl(append([]string{"-n", r.Namespace}, args...)...)
}

// apply makes objects out of YAML.
func (r *Run) apply(objects string) error {
	_, err := r.Lab.KubectlInput(objects, "-n", r.Namespace, "apply", "-f", "-")
	return err
}

// shell runs a script in a pod, and returns its lines.
func (r *Run) shell(pod, script string) ([]string, error) {
	text, err := r.kubectl("exec", pod, "--", "sh", "-c", script)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(text), "\n"), nil
}
