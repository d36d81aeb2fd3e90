package kubectl

import (
	"fmt"
	"slices"
)

// judgeFastPath says whether flows between the pods take the fast path on each node. None
// of it is wrong: what does not take it takes the kernel's path.
func (w *walk) judgeFastPath(f *wayFound) {
	for i := range w.ends {
		if i == 0 || w.ends[0].site.Node != w.ends[1].site.Node {
			w.ends[i].judgeFastPath(f, &w.ends[1-i])
		}
	}
}

func (e *end) judgeFastPath(f *wayFound, other *end) {
	path := e.status.said.DataPath
	if e.status.err != nil || path == nil {
		return // said elsewhere, or flatnetd has none
	}
	about := "fast path on " + e.site.Node
	const kernels = "flows take the kernel's path"
	if !path.takes() {
		f.add(stepNote, about, kernels+": "+path.Because, "")
		return
	}
	pods := []*end{e}
	if other.site.Node == e.site.Node {
		pods = append(pods, other)
	}
	for _, p := range pods {
		if why := p.withoutFastPath(path); why != "" {
			f.add(stepNote, about, kernels+": "+why, "")
			return
		}
	}
	if e.flows.err != nil {
		f.add(stepUnknown, about, unanswered(e.site, e.flows.err).Reason, "")
		return
	}
	active, half := 0, 0
	for _, one := range e.flows.said.Flows {
		from, to := one.From.Addr(), one.To.Addr()
		if !(slices.Contains(e.addresses, from) && slices.Contains(other.addresses, to) || slices.Contains(e.addresses, to) && slices.Contains(other.addresses, from)) {
			continue
		}
		if one.Active {
			active++
		} else {
			half++
		}
	}
	switch {
	case active > 0:
		f.add(stepFine, about, fmt.Sprintf("taken by %s between the pods now", counted(active, "flow")), "")
	case half > 0:
		f.add(stepNote, about, fmt.Sprintf("%s between the pods: not yet in both directions", counted(half, "flow")), "")
	case e.flows.said.More > 0:
		f.add(stepNote, about, fmt.Sprintf("none of the %s with the most bytes is between the pods; %d more were not looked at", counted(len(e.flows.said.Flows), "flow"), e.flows.said.More), "")
	default:
		f.add(stepNote, about, "no flow between the pods takes it now: none is established, or all are translated here (a Service's address, a host port) or short", "")
	}
}

// withoutFastPath says why the pod of this end has none; "" where it has.
func (e *end) withoutFastPath(path *dataPath) string {
	if slices.Contains(path.Without, e.String()) {
		return fmt.Sprintf("it is switched off for %s", e)
	}
	for _, p := range e.attached.said.Pods {
		for _, s := range path.Skipped {
			if p.Pod == e.String() && p.Interface == s.Interface {
				return fmt.Sprintf("not at the interface of %s: %s", e, s.Reason)
			}
		}
	}
	return ""
}
