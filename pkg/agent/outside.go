package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// outsider is a pod that holds an address outside of the node's podCIDRs: these
// were changed while it ran.
type outsider struct {
	address netip.Addr
	pod     string // namespace/name, or the container's id
}

// outsidersOf are those of the recorded attachments. Whose addresses come from another
// allocator than flatnet's own is not concerned.
func outsidersOf(records []attachment.Record, podCIDRs []netip.Prefix) (all []outsider) {
	for _, r := range records {
		if r.IPAM != "" {
			continue
		}
		for _, address := range r.Wire.Addresses {
			if slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return p.Contains(address) }) {
				continue
			}
			pod := r.Pod
			if pod == "" {
				pod = "container " + r.ContainerID
			}
			all = append(all, outsider{address, pod})
		}
	}
	slices.SortFunc(all, func(a, b outsider) int { return a.address.Compare(b.address) })
	return all
}

// outsideProblem names the pods, as many as fit into a line that people read.
func outsideProblem(node string, outsiders []outsider, podCIDRs []netip.Prefix) problem.Problem {
	const most = 8
	var names []string
	for _, o := range outsiders[:min(most, len(outsiders))] {
		names = append(names, fmt.Sprintf("%s (%s)", o.address, o.pod))
	}
	text := strings.Join(names, ", ")
	if more := len(outsiders) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	var cidrs []string
	for _, c := range podCIDRs {
		cidrs = append(cidrs, c.String())
	}
	return problem.PodsOutside.Of(problem.Facts{
		Node: node, Object: "pods outside of the podCIDRs " + strings.Join(cidrs, ", "), Reason: "hold " + text,
		Advice: "the node's podCIDRs were changed while they ran: other nodes have no route to them, and what they send out of the cluster keeps their addresses. Delete them, so that they are made anew",
	})
}

// outside counts the addresses of one family outside of the podCIDRs.
func outside(outsiders []outsider, family string) (count uint64) {
	for _, o := range outsiders {
		if o.address.Is6() == (family == "IPv6") {
			count++
		}
	}
	return count
}
