package kubectl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// patience is how long one node may take, unless somebody says otherwise. An agent answers
// within milliseconds, and the way to it, over API server, kubelet and runtime, takes a
// tenth of a second.
const patience = 4 * time.Second

var (
	errNoAnswer = errors.New("no answer in time")
	errNoTime   = errors.New("the time of --timeout was over")

	errInterrupted = errors.New("interrupted")
)

// atOnce calls do for 0 to n-1, for no more than some at a time, and returns when all are
// done. When ctx ends no more are begun.
func atOnce(ctx context.Context, n, some int, do func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, some) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	workers.Wait()
}

// asker asks the flatnetd of many nodes.
type asker struct {
	executor executor
	parallel int
	patience time.Duration // with one node
}

// limit is ctx, for one question to a node.
func (a asker) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.patience, errNoAnswer)
}

// each asks every site that can be asked, and tells its answer. Where rights are missing
// for one they are for all: the others are not asked then. The functions that are told
// are called on several goroutines, but once for each site.
func (a asker) each(ctx context.Context, sites []site, ask func(ctx context.Context, s site) ([]byte, error), tell func(i int, raw []byte, err error)) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	told := make([]bool, len(sites))
	atOnce(ctx, len(sites), a.parallel, func(i int) {
		if sites[i].Fault != nil {
			return
		}
		within, done := a.limit(ctx)
		raw, err := ask(within, sites[i])
		done()
		if apierrors.IsForbidden(err) {
			stop(err)
		}
		told[i] = true
		tell(i, raw, err)
	})
	for i := range sites {
		if !told[i] && sites[i].Fault == nil {
			tell(i, nil, context.Cause(ctx))
		}
	}
}

// flatnetd executes a command of flatnetd's.
func (a asker) flatnetd(ctx context.Context, s site, words ...string) ([]byte, error) {
	return a.executor.Exec(ctx, s.Container, append([]string{agentName}, words...)...)
}

// status asks for the brief status, and where an older agent has none, for all of it.
func (a asker) status(ctx context.Context, s site) ([]byte, error) {
	raw, err := a.flatnetd(ctx, s, "status", "-o", "json", "--brief")
	var exit exitError
	if errors.As(err, &exit) && strings.Contains(exit.said, "flag provided but not defined: -brief") {
		return a.flatnetd(ctx, s, "status", "-o", "json")
	}
	return raw, err
}

// unanswered says why a site did not answer.
func unanswered(s site, err error) *fault {
	var exit exitError
	logs := fmt.Sprintf("`kubectl -n %s logs %s` may say why", s.Container.Namespace, s.Container.Pod)
	switch {
	case errors.Is(err, errNoTime), errors.Is(err, context.DeadlineExceeded):
		return &fault{stateNotAsked, errNoTime.Error() + " before it was asked, or had answered", "give more --timeout, or more --parallel"}
	case errors.Is(err, errInterrupted):
		return &fault{stateNotAsked, errInterrupted.Error(), ""}
	case apierrors.IsForbidden(err):
		return &fault{stateNotAsked, err.Error(), "whoever gives rights in the cluster can allow it; docs/kubectl.md has what is needed"}
	case errors.Is(err, errNoAnswer):
		return &fault{stateNoAnswer, fmt.Sprintf("pod %s gives %s (--each)", s.Container.Pod, errNoAnswer), "see whether the node is well: `kubectl describe node " + s.Node + "`; " + logs}
	case errors.As(err, &exit):
		return &fault{stateNoAnswer, fmt.Sprintf("flatnetd of pod %s: %s", s.Container.Pod, exit), logs}
	}
	return &fault{stateNoAnswer, fmt.Sprintf("executing flatnetd in pod %s: %s", s.Container.Pod, err), logs}
}
