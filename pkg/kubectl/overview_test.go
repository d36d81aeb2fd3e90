package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// printed is the overview as people see it, at a time three hours after fine's agents began.
func printed(o *overview) string {
	var b strings.Builder
	o.print(&b, time.Unix(1_000_000, 0).Add(3*time.Hour))
	return b.String()
}

func expect(t *testing.T, o *overview, exit int, want string) {
	t.Helper()
	if got := printed(o); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if o.exit() != exit {
		t.Errorf("the exit status is %d, want %d", o.exit(), exit)
	}
}

func TestAllIsWell(t *testing.T) {
	l := newLab(t, 10)
	l.server.Remove(nodeNamed("n4"))
	l.server.Remove(nodeNamed("n5"))
	l.server.Remove(nodeNamed("n6"))
	l.server.Remove(nodeNamed("n7"))
	l.server.Remove(nodeNamed("n8"))
	o := takeOverview(t.Context(), "test", l.look(t), asker{answers(func(string, map[string]any) error { return nil }), 2, time.Minute})
	expect(t, o, exitFine, `5 nodes: 5 ready; 15 pods; no problems

NODE  STATE  VERSION  UP  FABRIC  PODS  PEERS     PROBLEMS
n1    ready  v1.2.3   3h  auto    3     2 direct  0
n2    ready  v1.2.3   3h  auto    3     2 direct  0
n3    ready  v1.2.3   3h  auto    3     2 direct  0
n9    ready  v1.2.3   3h  auto    3     2 direct  0
n10   ready  v1.2.3   3h  auto    3     2 direct  0
`)
}

func TestEverythingThatMayBeWrong(t *testing.T) {
	l := newLab(t, 12)
	l.server.Remove(agentOn("n2"))
	down := nodeNamed("n3")
	down.Status.Conditions[0] = v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionUnknown, LastTransitionTime: metav1.Unix(1_000_000, 0)}
	l.server.Put(down)
	crashing := agentOn("n4")
	crashing.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "flatnetd", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 10s"}}}}
	l.server.Put(crashing)
	windows := nodeNamed("n11")
	windows.Labels["kubernetes.io/os"] = "windows"
	l.server.Put(windows)
	l.server.Remove(agentOn("n11"))
	waiting := agentOn("n12")
	waiting.Spec.NodeName = ""
	waiting.Status = v1.PodStatus{Phase: v1.PodPending, Conditions: []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "no memory"}}}
	waiting.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
		{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{"n12"}}}},
	}}}}
	l.server.Put(waiting)
	o := takeOverview(t.Context(), "test", l.look(t), asker{answers(func(node string, s map[string]any) error {
		sysctl := map[string]any{"kind": "sysctl", "node": node, "object": "sysctl net.ipv4.ip_forward", "reason": "cannot be set on node " + node + ": read-only", "advice": "set it on node " + node}
		switch node {
		case "n5":
			return exitError{1, "asking flatnetd: no flatnetd runs"}
		case "n6":
			s["ready"], s["notReady"] = false, "node n6 has no podCIDR"
		case "n7", "n8", "n10":
			s["problems"] = []any{sysctl}
			if node == "n10" {
				s["problems"] = []any{sysctl, map[string]any{
					"kind": "peer-route", "node": "n1", "reason": "node n10 has no route, unlike node n100", "advice": "look at `ip route`",
					"follows": []any{map[string]any{"node": "n1", "object": "podCIDR 10.0.0.0/24", "reason": "is not reached"}},
				}}
			}
		case "n9":
			s["version"], s["fabric"] = "v1.3.0", "vxlan"
			s["joined"] = []any{map[string]any{"mode": "direct", "peers": 9}, map[string]any{"mode": "vxlan", "peers": 2, "names": []string{"n1", "n3"}}, map[string]any{"mode": "none", "peers": 4, "names": []string{"a", "b", "c", "d"}}}
			s["missing"] = map[string]any{"peers": 1, "names": []string{"n8"}}
			s["unwell"] = map[string]any{"peers": 2, "names": []string{"n3", "n7"}}
		}
		return nil
	}), 64, time.Minute})
	expect(t, o, exitWrong, `12 nodes: 1 no flatnetd, 1 node down, 2 not running, 1 no answer, 1 not ready, 5 ready, 1 not selected; 18 pods; problems at 3 nodes
  - n2: no flatnetd: no flatnetd pod is on it, though DaemonSet flatnetd selects it
    `+"`kubectl -n net describe daemonset flatnetd`"+` has events that say why
  - n3: node down: kubelet says nothing since 1970-01-12 13:46:40 UTC
    see whether the machine runs, and its kubelet: `+"`kubectl describe node n3`"+`; its pods may be reached all the same
  - n4: not running: pod flatnetd-n4 does not run: CrashLoopBackOff: back-off 10s
    `+"`kubectl -n net describe pod flatnetd-n4` and `kubectl -n net logs flatnetd-n4 --previous`"+` say more
  - n12: not running: pod flatnetd-n12 is Pending: Unschedulable: no memory
    `+"`kubectl -n net describe pod flatnetd-n12` and `kubectl -n net logs flatnetd-n12 --previous`"+` say more
  - n5: no answer: flatnetd of pod flatnetd-n5: asking flatnetd: no flatnetd runs
    `+"`kubectl -n net logs flatnetd-n5`"+` may say why
  - n6: not ready: this node has no podCIDR
  - n9: routes to peers are missing in the kernel
    `+"`kubectl -n net exec POD -- flatnetd status`"+` lists them
  - 3 nodes (n7 n8 n10): sysctl net.ipv4.ip_forward: cannot be set on this node: read-only [sysctl]
    set it on this node
  - n10: node n1: this node has no route, unlike node n100 [peer-route]
    look at `+"`ip route`"+`; and 1 thing that follows from it: node n1: podCIDR 10.0.0.0/24
  note: version: v1.2.3 at 5 nodes, v1.3.0 at n9
  note: fabric: auto at 5 nodes, vxlan at n9

NODE  STATE         VERSION  UP  FABRIC  PODS  PEERS                                                                          PROBLEMS
n2    no flatnetd   -        -   -       -     -                                                                              -
n3    node down     -        -   -       -     -                                                                              -
n4    not running   -        -   -       -     -                                                                              -
n12   not running   -        -   -       -     -                                                                              -
n5    no answer     -        -   -       -     -                                                                              -
n6    not ready     v1.2.3   3h  auto    3     2 direct                                                                       0
n7    ready         v1.2.3   3h  auto    3     2 direct                                                                       1
n8    ready         v1.2.3   3h  auto    3     2 direct                                                                       1
n9    ready         v1.3.0   3h  vxlan   3     9 direct, 2 vxlan (n1 n3), 4 none (a b c …), 1 MISSING (n8), 2 LOSING (n3 n7)  0
n10   ready         v1.2.3   3h  auto    3     2 direct                                                                       2
n1    ready         v1.2.3   3h  auto    3     2 direct                                                                       0
n11   not selected  -        -   -       -     -                                                                              -
`)
}

// A right that is missing for one is missing for all: nobody else is asked, and the one
// line says which it is.
func TestForbidden(t *testing.T) {
	l := newLab(t, 200)
	asked := make(chan string, 200)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods/exec"}, "flatnetd-n1", errors.New(`User "eve" cannot create resource "pods/exec" in API group "" in the namespace "net"`))
	o := takeOverview(t.Context(), "test", l.look(t), asker{executes(func(_ context.Context, in container, _ ...string) ([]byte, error) {
		asked <- in.Pod
		return nil, forbidden
	}), 4, time.Minute})
	if len(asked) > 4 {
		t.Errorf("%d are asked", len(asked))
	}
	if o.exit() != exitUnknown {
		t.Errorf("the exit status is %d", o.exit())
	}
	const want = `200 nodes: 200 not asked; 0 pods
  - 200 nodes (n1 n2 n3 …): not asked: pods/exec "flatnetd-n1" is forbidden: User "eve" cannot create resource "pods/exec" in API group "" in the namespace "net"
    whoever gives rights`
	if got := printed(o); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A node that hangs is a line, and so are those for which no time is left.
func TestTimeEnds(t *testing.T) {
	l := newLab(t, 6)
	ctx, cancel := context.WithCancelCause(t.Context())
	o := takeOverview(ctx, "test", l.look(t), asker{executes(func(within context.Context, in container, _ ...string) ([]byte, error) {
		switch in.Pod {
		case "flatnetd-n1":
			return nil, errNoAnswer // what becomes of its own time
		case "flatnetd-n2":
			return json.Marshal(fine("n2"))
		case "flatnetd-n3":
			cancel(errNoTime)
		}
		<-within.Done()
		return nil, context.Cause(within)
	}), 2, time.Minute})
	const want = `6 nodes: 1 no answer, 4 not asked, 1 ready; 3 pods
  - n1: no answer: pod flatnetd-n1 gives no answer in time (--each)
    see whether the node is well: ` + "`kubectl describe node n1`; `kubectl -n net logs flatnetd-n1`" + ` may say why
  - 4 nodes (n3 n4 n5 …): not asked: the time of --timeout was over before it was asked, or had answered
`
	if got := printed(o); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if o.exit() != exitWrong {
		t.Errorf("the exit status is %d", o.exit())
	}
}
