package kubectl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// judgeRoutes says whether the node of one end has routes to the pod at the other.
func (w *walk) judgeRoutes(f *wayFound, from, to int) {
	here, there := &w.ends[from], &w.ends[to]
	if here.site.Fault != nil || here.noSite || here.status.err != nil || here.site.Node == "" || there.pod.Spec.NodeName == "" {
		return // said elsewhere
	}
	if here.site.Node == there.pod.Spec.NodeName {
		if from == 0 {
			f.add(stepFine, "routes", "both pods are on "+here.site.Node, "")
		}
		return
	}
	if there.pod.Spec.HostNetwork {
		return // the node's own addresses are not flatnet's matter
	}
	about := fmt.Sprintf("route from %s to %s", here.site.Node, there)
	if slices.Contains(here.status.said.unread, "peers") {
		f.add(stepUnknown, about, here.status.said.misread("peers"), misreadAdvice)
		return
	}
	at := slices.IndexFunc(here.status.said.Peers, func(p peerWays) bool { return p.Name == there.pod.Spec.NodeName })
	if at < 0 {
		f.add(stepWrong, about, fmt.Sprintf("flatnetd on %s does not know node %s", here.site.Node, there.pod.Spec.NodeName), "look at its problems; has the node podCIDRs and an address?")
		return
	}
	peer := here.status.said.Peers[at]
	if len(peer.Ways) == 0 {
		f.add(stepWrong, about, "node "+peer.Name+" has no podCIDR yet", "Kubernetes assigns one if the controller manager runs with --allocate-node-cidrs")
		return
	}
	for _, a := range there.addresses {
		at := slices.IndexFunc(peer.Ways, func(w way) bool { return w.PodCIDR.Contains(a) })
		if at < 0 {
			f.add(stepWrong, about, fmt.Sprintf("%s is in none of the podCIDRs of node %s", a, peer.Name), "delete the pod, so that it is made anew: the node's podCIDRs have changed, or it is not flatnet's")
			continue
		}
		switch w := peer.Ways[at]; {
		case w.Mode == "":
			f.add(stepWrong, about, fmt.Sprintf("there is no way to podCIDR %s of node %s", w.PodCIDR, peer.Name), adviceOn(here.status.said.answer, peer.Name))
		case !w.Present:
			f.add(stepWrong, about, fmt.Sprintf("the route to podCIDR %s (%s) is not in the kernel", w.PodCIDR, w.words()), "flatnetd writes it again within a second; where it does not, its problems say why")
		case w.Health.unwell():
			f.add(stepWrong, about, fmt.Sprintf("%s by %s: %s", w.PodCIDR, w.words(), w.Health.loss()), adviceOn(here.status.said.answer, peer.Name))
		default:
			f.add(stepFine, about, fmt.Sprintf("%s by %s%s", w.PodCIDR, w.words(), w.Health.trip()), "")
		}
	}
}

// loss says what of the probes is lost.
func (h health) loss() string {
	switch h.State {
	case "lost":
		return "probes are lost, all of them"
	case "lossy":
		return fmt.Sprintf("%d of the last %d probes are lost", h.Lost, h.Sent)
	}
	return "large packets are lost, and small ones are not"
}

// trip says how long probes take, if that is known.
func (h health) trip() string {
	if h.State != "ok" || h.RoundTrip == 0 {
		return ""
	}
	return fmt.Sprintf(", %.2f ms there and back", float64(h.RoundTrip)/1000)
}

// words say how the route leads: "direct via 172.30.0.2 dev eth0".
func (w way) words() string {
	text := w.Mode
	if w.Via.IsValid() {
		text += " via " + w.Via.String()
	}
	if w.Link != "" {
		text += " dev " + w.Link
	}
	return text
}

// adviceOn is what an agent advises about a peer, "" where it has no problem with it.
func adviceOn(a answer, peer string) string {
	for _, t := range a.Problems {
		if t.Node == peer {
			return t.sentence(a.Node) + "; " + t.Advice
		}
	}
	return ""
}

// judgePolicies says whether the policies of both ends let a connection pass.
func (w *walk) judgePolicies(f *wayFound) {
	if w.port == "" {
		f.add(stepNote, "policies", "not looked at: no port was given, and pod "+w.ends[1].String()+" declares none", "")
		return
	}
	for i := range w.ends {
		e := &w.ends[i]
		if i == 1 && e.site.Node == w.ends[0].site.Node {
			break // the same node has said it
		}
		wrong := false
		for _, x := range e.explains {
			wrong = e.judgeExplanation(f, x) || wrong
		}
		if len(e.explains) > 0 && !wrong {
			f.add(stepFine, "policies on "+e.site.Node, "they allow port "+w.port, "")
		}
	}
}

// judgeExplanation says what one node's policies say for one family; whether that is
// anything but yes.
func (e *end) judgeExplanation(f *wayFound, x asked[explanation]) (said bool) {
	about := "policies on " + e.site.Node
	var exit exitError
	switch {
	case errors.As(x.err, &exit) && strings.Contains(exit.said, "policies are not kept"):
		f.add(stepNote, about, "this flatnetd keeps none", "")
		return true
	case x.err != nil:
		why := unanswered(e.site, x.err)
		f.add(stepUnknown, about, why.Reason, why.Advice)
		return true
	}
	for _, d := range x.said.Decisions {
		if !d.Allowed {
			said = true
			f.add(stepWrong, about, fmt.Sprintf("%s of %s is refused: %s", d.Direction, d.Pod, d.Because), "docs/policies.md has recipes; `flatnetd policy explain` on the node says more")
		}
	}
	k := x.said.Kernel
	if k == nil {
		return said
	}
	if len(k.Differs) > 0 {
		said = true
		f.add(stepWrong, about, "the kernel has other rules: "+strings.Join(k.Differs, "; "), "flatnetd writes them again within a second; where it does not, its problems say why")
	}
	if len(k.Closed) > 0 {
		said = true
		f.add(stepWrong, about, "closed until the pod's rules are in place: "+addresses(k.Closed), "see whether flatnetd reaches the API server")
	}
	if len(k.Evicted) > 0 {
		said = true
		f.add(stepWrong, about, "somebody new has the address, and the rules do not know who: "+addresses(k.Evicted), "see whether flatnetd reaches the API server")
	}
	return said
}
