package agent

import (
	"errors"
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// errRefused says that the kernel refused objects of the fabric, each of which is
// a problem by itself.
var errRefused = errors.New("objects of the fabric were refused")

// unlistedError says that the source of nodes does not have this node.
type unlistedError struct{ node, source string }

func (e unlistedError) Error() string {
	return fmt.Sprintf("node %s is not in the source of nodes (%s)", e.node, e.source)
}

// taskProblems are the tasks that failed when they were last done.
func (a *Agent) taskProblems() (all []problem.Problem) {
	for t, err := range a.errors {
		var unlisted unlistedError
		switch {
		case err == nil || errors.Is(err, errRefused):
		case errors.As(err, &unlisted):
			all = append(all, problem.NodeUnlisted.Of(problem.Facts{
				Object: "--node-name " + a.config.NodeName, Reason: err.Error() + ": nothing is changed",
				Advice: fmt.Sprintf("set --node-name to the name that this node has in %s, or add the node there", a.sourceName()),
			}))
		default:
			f := problem.Facts{Node: a.config.NodeName, Object: "task " + task(t).String(), Reason: err.Error(), Advice: taskAdvice[t]}
			if task(t) == installTask {
				f.Breaks = []problem.Thing{problem.Installing}
			}
			all = append(all, problem.TaskFailed.Of(f))
		}
	}
	return all
}

const again = "; it is tried again by itself"

// taskAdvice is what to look at where a task cannot do its work.
var taskAdvice = [numberOfTasks]string{
	joinTask:       "no peer is joined anew until this works: look at what the sentence names, `nft list ruleset`, and the kernel's log (dmesg)" + again,
	verifyTask:     "what others change of the fabric is not mended until this works: look at the kernel's log (dmesg), and at who else changes interfaces and routes all the time (`ip monitor`)" + again,
	masqueradeTask: "look at `nft list table inet flatnet` and at who else changes it (`nft monitor`)" + again,
	podsTask:       "a pod's interface or routes could not be mended: look at the pod that the sentence names; to delete it always helps" + again,
	hostTask:       "check that /proc/sys is mounted where flatnetd runs (--sysctl-dir)" + again,
	installTask:    "look at --plugins-dir, --cni-bin-dir and --cni-conf-dir: whether they are there, have space and can be written" + again,
	kernelTask:     "what the kernel lacks is not known: flatnetd goes by what it has; run it as root, with CAP_NET_ADMIN" + again,
	servicesTask:   "flatnetd cannot tell whether kube-proxy runs, or whether ClusterIPs have a route: look at `nft list tables` and `ip route`" + again,
	collectTask:    "addresses of pods that are gone stay reserved until this works: look at --state-dir, whether it has space and can be written" + again,
	restTask:       "nothing depends on it" + again,
}
