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

// findOutsiders reads the attachments that the plugin has recorded. Whose addresses
// come from another allocator than flatnet's own is not concerned.
func (a *Agent) findOutsiders() error {
	records, err := attachment.OpenDirectory(a.config.StateDir).List(a.network.Name)
	if err != nil {
		return fmt.Errorf("looking for pods outside of the podCIDRs: %w", err)
	}
	a.outsiders = outsidersOf(records, a.network.PodCIDRs)
	return nil
}

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
func (a *Agent) outsideProblem() []problem.Problem {
	if len(a.outsiders) == 0 {
		return nil
	}
	const most = 8
	var names []string
	for _, o := range a.outsiders[:min(most, len(a.outsiders))] {
		names = append(names, fmt.Sprintf("%s (%s)", o.address, o.pod))
	}
	text := strings.Join(names, ", ")
	if more := len(a.outsiders) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	var cidrs []string
	for _, c := range a.network.PodCIDRs {
		cidrs = append(cidrs, c.String())
	}
	return []problem.Problem{problem.PodsOutside.Of(problem.Facts{
		Node: a.config.NodeName, Object: "pods outside of the podCIDRs " + strings.Join(cidrs, ", "), Reason: "hold " + text,
		Advice: "the node's podCIDRs were changed while they ran: other nodes have no route to them, and what they send out of the cluster keeps their addresses. Delete them, so that they are made anew",
	})}
}

// outside counts the addresses of one family outside of the podCIDRs.
func (a *Agent) outside(family string) (count uint64) {
	for _, o := range a.outsiders {
		if o.address.Is6() == (family == "IPv6") {
			count++
		}
	}
	return count
}
