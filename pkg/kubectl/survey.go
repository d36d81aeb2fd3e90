package kubectl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What flatnetd's DaemonSet is found by, and what is taken where nobody may look for it.
const (
	agentLabel       = "app.kubernetes.io/name=flatnetd"
	agentName        = "flatnetd"
	defaultNamespace = "flatnet"
)

// survey is where in the cluster flatnetd runs, and where it should.
type survey struct {
	Namespace string
	DaemonSet *apps.DaemonSet // nil where nobody may read it
	Sites     []site          // by name of the node
	// Unknown is what could not be found out, since rights are missing.
	Unknown []string

	// complete says that there are as many pods as the DaemonSet wants.
	complete bool
}

// site is a node, and its flatnetd.
type site struct {
	Node      string
	Container container // with an empty Pod where there is none
	// Fault is why nobody can be asked there.
	Fault *fault
	// Restarts is how often the container has been started again.
	Restarts int32
}

// fault is why nothing is known of a node.
type fault struct {
	State  string
	Reason string
	Advice string
}

// look finds flatnetd.
func (c *client) look(ctx context.Context, namespace string) (*survey, error) {
	s := &survey{Namespace: namespace}
	sets, err := c.daemonSets(ctx, namespace, agentLabel)
	switch {
	case apierrors.IsForbidden(err) && namespace == "":
		s, failure := c.look(ctx, defaultNamespace) // rights are often those of one namespace
		if failure != nil {
			failure = fmt.Errorf("%w; it was looked for there, since %w: name its namespace with --namespace", failure, err)
		}
		return s, failure
	case apierrors.IsForbidden(err):
		s.Unknown = append(s.Unknown, err.Error()+"; which nodes should have flatnetd is not known")
	case err != nil:
		return nil, err
	case len(sets) == 0 && namespace == "":
		return nil, errors.New("no namespace has a DaemonSet with the label " + agentLabel + ": is flatnet installed in this cluster?")
	case len(sets) == 0:
		return nil, fmt.Errorf("namespace %s has no DaemonSet with the label %s; without --namespace it is looked for in all", namespace, agentLabel)
	case slices.ContainsFunc(sets, func(d apps.DaemonSet) bool { return d.Namespace != sets[0].Namespace }):
		return nil, fmt.Errorf("namespaces %s and others have DaemonSets with the label %s: say which with --namespace", sets[0].Namespace, agentLabel)
	default:
		s.DaemonSet, s.Namespace = &sets[0], sets[0].Namespace
	}
	selector := agentLabel
	if s.DaemonSet != nil && s.DaemonSet.Spec.Selector != nil {
		selector = metav1.FormatLabelSelector(s.DaemonSet.Spec.Selector)
	}
	pods := map[string]*v1.Pod{} // by node
	err = c.pods(ctx, s.Namespace, selector, func(p *v1.Pod) {
		name := nodeOf(p)
		if before := pods[name]; before == nil || prefer(p, before) {
			p.ManagedFields = nil
			pods[name] = p
		}
	})
	if err != nil {
		return nil, err
	}
	s.complete = s.DaemonSet != nil && s.DaemonSet.Status.DesiredNumberScheduled > 0 && int(s.DaemonSet.Status.DesiredNumberScheduled) == len(pods)
	err = c.nodes(ctx, func(n *v1.Node) {
		s.Sites = append(s.Sites, s.site(n, pods[n.Name]))
		delete(pods, n.Name)
	})
	if apierrors.IsForbidden(err) {
		s.Unknown = append(s.Unknown, err.Error()+"; nodes without flatnetd are not seen")
		for name, p := range pods {
			s.Sites = append(s.Sites, siteOf(name, p))
		}
	} else if err != nil {
		return nil, err
	}
	slices.SortFunc(s.Sites, func(a, b site) int { return natural(a.Node, b.Node) })
	return s, nil
}

// site is what is known of a node before anybody is asked.
func (s *survey) site(n *v1.Node, p *v1.Pod) site {
	if p == nil {
		return site{Node: n.Name, Fault: s.withoutPod(n)}
	}
	at := siteOf(n.Name, p)
	for _, c := range n.Status.Conditions {
		// The kubelet executes; without one the question would only wait.
		if c.Type == v1.NodeReady && c.Status == v1.ConditionUnknown {
			at.Fault = &fault{stateNodeDown, fmt.Sprintf("kubelet says nothing since %s", c.LastTransitionTime.UTC().Format("2006-01-02 15:04:05 MST")),
				"see whether the machine runs, and its kubelet: `kubectl describe node " + n.Name + "`; its pods may be reached all the same"}
		}
	}
	return at
}

// siteOf is what is known by the pod alone.
func siteOf(node string, p *v1.Pod) site {
	at := site{Node: node, Container: containerOf(p), Fault: podFault(p)}
	for _, c := range p.Status.ContainerStatuses {
		if c.Name == at.Container.Name {
			at.Restarts = c.RestartCount
		}
	}
	return at
}

// withoutPod says why a node has no flatnetd.
func (s *survey) withoutPod(n *v1.Node) *fault {
	if s.DaemonSet == nil {
		return &fault{stateNoAgent, "no flatnetd pod is on it", "look at the DaemonSet's events and its nodeSelector"}
	}
	wanted := s.DaemonSet.Spec.Template.Spec.NodeSelector
	if !labels.SelectorFromSet(wanted).Matches(labels.Set(n.Labels)) {
		return &fault{stateNotSelected, "the DaemonSet's nodeSelector " + labels.FormatLabels(wanted) + " leaves it out", ""}
	}
	if s.complete {
		return &fault{stateNotSelected, "the DaemonSet does not want a pod there: its nodeAffinity leaves the node out, or a taint that it does not tolerate", ""}
	}
	return &fault{stateNoAgent, "no flatnetd pod is on it, though DaemonSet " + s.DaemonSet.Name + " selects it",
		fmt.Sprintf("`kubectl -n %s describe daemonset %s` has events that say why", s.Namespace, s.DaemonSet.Name)}
}

// nodeOf is the node that a pod of a DaemonSet is for, also while it waits to get there.
func nodeOf(p *v1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return p.Spec.NodeName
	}
	required := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		return ""
	}
	for _, term := range required.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// prefer reports whether of two pods of a node, as there are during an update, one is to
// be asked rather than the other.
func prefer(one, other *v1.Pod) bool {
	rank := func(p *v1.Pod) int {
		n := 0
		if p.DeletionTimestamp == nil {
			n++
		}
		if p.Status.Phase == v1.PodRunning {
			n += 2
		}
		return n
	}
	if a, b := rank(one), rank(other); a != b {
		return a > b
	}
	return other.CreationTimestamp.Before(&one.CreationTimestamp)
}

// containerOf is flatnetd's container.
func containerOf(p *v1.Pod) container {
	c := container{p.Namespace, p.Name, agentName}
	all := p.Spec.Containers
	if len(all) > 0 && !slices.ContainsFunc(all, func(c v1.Container) bool { return c.Name == agentName }) {
		c.Name = all[0].Name
	}
	return c
}

// podFault says why nothing can be executed in a pod.
func podFault(p *v1.Pod) *fault {
	name := containerOf(p).Name
	commands := fmt.Sprintf("`kubectl -n %[1]s describe pod %[2]s` and `kubectl -n %[1]s logs %[2]s --previous` say more", p.Namespace, p.Name)
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.Name != name:
		case c.State.Waiting != nil:
			return &fault{stateNotRunning, fmt.Sprintf("pod %s does not run: %s", p.Name, sentence(c.State.Waiting.Reason, c.State.Waiting.Message)), commands}
		case c.State.Terminated != nil:
			return &fault{stateNotRunning, fmt.Sprintf("pod %s has ended with status %d: %s", p.Name, c.State.Terminated.ExitCode, sentence(c.State.Terminated.Reason, c.State.Terminated.Message)), commands}
		}
	}
	if p.Status.Phase == v1.PodRunning {
		return nil
	}
	why := sentence(p.Status.Reason, p.Status.Message)
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse {
			why = sentence(c.Reason, c.Message)
		}
	}
	return &fault{stateNotRunning, strings.TrimSuffix(fmt.Sprintf("pod %s is %s: %s", p.Name, p.Status.Phase, why), ": "), commands}
}

func sentence(reason, message string) string {
	return strings.Trim(reason+": "+message, ": ")
}
