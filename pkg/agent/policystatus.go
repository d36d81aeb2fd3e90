package agent

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/policy"
)

// PoliciesStatus is how policies are kept.
type PoliciesStatus struct {
	// Policies is nil where they are not.
	Policies *policy.Summary `json:"policies,omitempty"`
}

func (p *policies) status() (all PoliciesStatus) {
	if p.controller != nil {
		s := p.controller.Summary()
		all.Policies = &s
	}
	return all
}

func (s PoliciesStatus) part() feature.Part {
	part := feature.Part{Document: s}
	if s.Policies == nil {
		return part
	}
	state := "rules as wanted"
	if !s.Policies.Synced {
		state = "rules NOT as wanted"
	}
	part.Rows = append(part.Rows, feature.Row{Name: "policies", Value: fmt.Sprintf("%d of %d select %d of %d pods here, %s",
		s.Policies.Selected, s.Policies.Policies, s.Policies.Isolated, s.Policies.Pods, state)})
	return part
}

// protocols are those that one can ask about, by their names.
func protocols(name string) (_ policy.Protocol, known bool) {
	p, known := map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": 1, "icmpv6": 58}[strings.ToLower(name)]
	return p, known
}

// parsePort reads PORT, PORT/PROTOCOL or a PROTOCOL without ports. A port is a number or a
// name.
func parsePort(text string) (p policy.Port, err error) {
	number, name, is := strings.Cut(text, "/")
	if !is {
		name = "tcp"
		if number == "icmp" || number == "icmpv6" {
			number, name = "0", number
		}
	}
	var known bool
	p.Protocol, known = protocols(name)
	n, notNumber := strconv.ParseUint(number, 10, 16)
	p.First, p.Last = uint16(n), uint16(n)
	switch {
	case known && notNumber == nil:
		return p, nil
	case known && p.Protocol.HasPorts() && len(validation.IsValidPortName(number)) == 0:
		return policy.Port{Protocol: p.Protocol, Name: number}, nil
	}
	return p, fmt.Errorf("%q is not a port, as in 80, http, 53/udp, dns/udp, 132/sctp or icmp", text)
}

// PodPolicies is what `flatnetd status policies` prints.
type PodPolicies struct {
	Pods []policy.PodStatus `json:"pods"`
	// RefusedEarly are the packets that were refused because a new pod's rules were not
	// in place yet.
	RefusedEarly EarlyPackets `json:"refusedEarly"`
	// Idle are the policies of the cluster that do nothing, or less than they say.
	Idle []policy.Fault `json:"idle,omitempty"`
}

// EarlyPackets are counted by direction, seen from the pod.
type EarlyPackets struct {
	Ingress uint64 `json:"ingress"`
	Egress  uint64 `json:"egress"`
}

// Print writes it for people.
func (s PodPolicies) Print(w io.Writer) {
	free := 0
	for _, p := range s.Pods {
		quiet := p.Known
		for _, d := range p.Sides {
			quiet = quiet && len(d.Policies) == 0
		}
		if quiet {
			free++
			continue
		}
		var addresses []string
		for _, a := range p.Addresses {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(w, "%s  %s\n", p.Pod, strings.Join(addresses, " "))
		if !p.Known {
			fmt.Fprintf(w, "  nothing is known of it yet: closed to %s\n", closedTo(p))
		}
		for _, d := range p.Sides {
			if len(d.Policies) == 0 {
				continue
			}
			rest := "what no rule is about passes"
			if d.Isolated {
				rest = "the rest is refused"
			}
			fmt.Fprintf(w, "  %s: %s, refused packets: %d; by %s\n", d.Direction, rest, d.Refused, strings.Join(d.Policies, ", "))
			for _, rule := range d.Allows {
				fmt.Fprintf(w, "    %s\n", rule)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d pods are selected by no policy\n", free, len(s.Pods))
	if e := s.RefusedEarly; e != (EarlyPackets{}) {
		fmt.Fprintf(w, "refused of new pods, before their rules were in place: %d packets of ingress, %d of egress\n", e.Ingress, e.Egress)
	}
	for _, f := range s.Idle {
		fmt.Fprintf(w, "%s %s\n", f.Policy, f.Fault)
	}
}

// closedTo says in which directions a pod is closed of which nothing is known.
func closedTo(p policy.PodStatus) string {
	var words []string
	for _, d := range p.Sides {
		if d.Isolated {
			words = append(words, d.Direction)
		}
	}
	if len(words) == 0 {
		return "nothing, since no policy can select it"
	}
	return strings.Join(words, " and ")
}

// printExplanation writes it for people.
func printExplanation(w io.Writer, e policy.Explanation) {
	what := e.Protocol
	if e.Port > 0 {
		what = fmt.Sprintf("port %d/%s", e.Port, e.Protocol)
	}
	if e.PortName != "" {
		what += ", which is " + e.PortName
	}
	verdict := "allowed"
	switch {
	case slices.ContainsFunc(e.Decisions, func(d policy.Decision) bool { return !d.Allowed }):
		verdict = "REFUSED"
	case e.Elsewhere && len(e.Decisions) == 0:
		verdict = "not decided on this node"
	case e.Elsewhere:
		verdict = "allowed by this node's end"
	}
	fmt.Fprintf(w, "%s to %s, %s: %s%s\n", e.From, e.To, what, verdict, doubt(e.Kernel))
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, d := range e.Decisions {
		word := "allows"
		if !d.Allowed {
			word = "refuses"
		}
		fmt.Fprintf(table, "  %s of %s %s\t%s\t%s\n", d.Direction, d.Pod, d.Address, word, d.Because)
	}
	table.Flush()
	for _, n := range e.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	if e.Kernel != nil {
		printInKernel(w, *e.Kernel)
	}
}

// doubt says in the headline that the kernel decides otherwise for now.
func doubt(k *policy.InKernel) string {
	switch {
	case k == nil:
		return ""
	case len(k.Differs) > 0:
		return " by the policies, BUT THE KERNEL HAS OTHER RULES"
	case len(k.Closed) > 0:
		return " by the policies, BUT A POD IS STILL CLOSED"
	case len(k.Evicted) > 0:
		return " by the policies, BUT AN ADDRESS IS SOMEBODY ELSE'S NOW"
	}
	return ""
}

// printInKernel says how the kernel's rules compare.
func printInKernel(w io.Writer, k policy.InKernel) {
	if len(k.Differs) > 0 {
		fmt.Fprintf(w, "  the kernel's rules differ from this: %s; they are written again within a second, see `flatnetd status` where they are not\n", strings.Join(k.Differs, "; "))
	}
	for _, a := range k.Closed {
		fmt.Fprintf(w, "  %s is closed by nftables table inet flatnet-closed, in one direction or both, until the rules of its pod are in place\n", a)
	}
	for _, a := range k.Evicted {
		fmt.Fprintf(w, "  %s was given to somebody new, of whom the rules do not know yet: no policy's selector takes it\n", a)
	}
	switch {
	case k.Failure != "":
		fmt.Fprintf(w, "  whether the kernel has these rules is not known: %s\n", k.Failure)
	case len(k.Differs) == 0:
		fmt.Fprintln(w, "  the kernel's rules were compared with this: they are the same")
	}
}
