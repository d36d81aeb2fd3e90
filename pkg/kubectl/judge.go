package kubectl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// judge says of everything on the way how it is, in the order in which a packet needs it.
func (w *walk) judge() *wayFound {
	f := &wayFound{Port: w.port}
	f.From, f.To = w.ends[0].words(), w.ends[1].words()
	for i := range w.ends {
		w.ends[i].judgePod(f)
	}
	for i := range w.ends {
		w.ends[i].judgeAttachment(f)
	}
	if w.ends[0].pod != nil && w.ends[1].pod != nil {
		if len(w.pairs()) == 0 && len(w.ends[0].addresses) > 0 && len(w.ends[1].addresses) > 0 {
			f.add(stepWrong, "addresses", "the pods have none of one family", "pods of IPv4 and of IPv6 alone do not reach each other; see spec.podCIDRs of the nodes")
		}
		w.judgeRoutes(f, 0, 1)
		w.judgeRoutes(f, 1, 0)
		w.judgePolicies(f)
		w.judgeFastPath(f)
	}
	for i := range w.ends {
		if i == 0 || w.ends[0].site.Node != w.ends[1].site.Node {
			w.ends[i].judgeNode(f)
		}
	}
	w.judgeVersions(f)
	return f
}

// words are the pod, its addresses and its node.
func (e *end) words() string {
	text := e.String()
	for _, a := range e.addresses {
		text += " " + a.String()
	}
	if e.pod != nil && e.pod.Spec.NodeName != "" {
		text += " on " + e.pod.Spec.NodeName
	}
	return text
}

func (e *end) judgePod(f *wayFound) {
	about := "pod " + e.String()
	describe := fmt.Sprintf("`kubectl -n %s describe pod %s` says more", e.namespace, e.name)
	switch {
	case e.pod == nil:
		f.add(stepWrong, about, "there is no such pod", "`kubectl get pods -A` lists all; a pod of a Deployment has another name each time")
	case e.pod.Spec.NodeName == "":
		f.add(stepWrong, about, "is on no node yet", describe)
	case e.pod.Status.Phase != v1.PodRunning:
		f.add(stepWrong, about, "is "+string(e.pod.Status.Phase)+", not running", describe)
	case len(e.addresses) == 0:
		f.add(stepWrong, about, "has no address yet", describe)
	case !podReady(e.pod):
		f.add(stepNote, about, "runs, but is not ready: no Service leads to it", describe)
	default:
		f.add(stepFine, about, "runs", "")
	}
}

func podReady(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodReady && c.Status == v1.ConditionTrue
	})
}

// judgeAttachment says whether the pod has what the plugin made for it.
func (e *end) judgeAttachment(f *wayFound) {
	if e.pod == nil || e.pod.Spec.NodeName == "" {
		return
	}
	about := fmt.Sprintf("attachment of %s on %s", e, e.pod.Spec.NodeName)
	switch {
	case e.noSite:
		f.add(stepUnknown, about, "there is no flatnetd on the node that this user may see", "")
		return
	case e.site.Fault != nil:
		state := stepWrong
		if e.site.Fault.State == stateNodeDown {
			state = stepUnknown
		}
		f.add(state, "flatnetd on "+e.site.Node, e.site.Fault.Reason, e.site.Fault.Advice)
		return
	case e.pod.Spec.HostNetwork:
		f.add(stepNote, about, "it is on the network of its node (hostNetwork), and not flatnet's", "")
		return
	case e.attached.err != nil:
		why := unanswered(e.site, e.attached.err)
		f.add(stepUnknown, about, why.Reason, why.Advice)
		return
	}
	for _, p := range e.attached.said.Pods {
		if p.Pod != e.String() {
			continue
		}
		for _, fault := range p.Faults {
			f.add(stepWrong, about, fault.Word+": "+fault.Reason, "to delete the pod, so that it is made anew, always helps")
		}
		for _, a := range e.addresses {
			if !slices.Contains(p.Addresses, a) {
				f.add(stepWrong, about, fmt.Sprintf("Kubernetes says %s, which it has not got: it has %s", a, addresses(p.Addresses)), "delete the pod, so that it is made anew")
				return
			}
		}
		if len(p.Faults) == 0 {
			f.add(stepFine, about, "as it was made", "")
		}
		return
	}
	f.add(stepWrong, about, "flatnet has not attached it", "it may be from before flatnet was there, or another plugin's: delete it, so that it is made anew, and look at /etc/cni/net.d on the node")
}

func addresses(all []netip.Addr) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(all), "[]")
}

// judgeVersions notes where an agent is too far from this program.
func (w *walk) judgeVersions(f *wayFound) {
	g := &gathered{}
	for _, e := range w.ends {
		if v := e.status.said.Version; v != "" {
			g.add(e.site.Node, v, "")
		}
	}
	for _, sentence := range skew(w.program, g.all) {
		f.add(stepNote, "versions", sentence, "")
	}
}

// judgeNode says what else is wrong on the node: not all of it has to do with the way.
func (e *end) judgeNode(f *wayFound) {
	if e.pod == nil || e.noSite || e.site.Fault != nil || e.site.Node == "" {
		return
	}
	about, s := "node "+e.site.Node, e.status.said
	switch {
	case e.status.err != nil:
		why := unanswered(e.site, e.status.err)
		f.add(stepUnknown, about, why.Reason, why.Advice)
		return
	case len(s.unread) > 0:
		f.add(stepUnknown, about, s.misread(s.unread...), misreadAdvice)
	case !s.Ready:
		f.add(stepWrong, about, "not ready: "+s.NotReady, "")
	case len(s.Problems) == 0:
		f.add(stepFine, about, "no problems", "")
	}
	for _, t := range s.Problems {
		f.add(stepWrong, about, t.sentence(e.site.Node), t.advice(e.site.Node))
	}
}
