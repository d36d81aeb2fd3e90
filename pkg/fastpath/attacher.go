package fastpath

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// attacher is how the programs are put at the sides of interfaces: by links of tcx
// ([links]) or by filters of traffic control ([filters]). Either way what others have
// there stays, and the programs ask it: before theirs or behind.
type attacher interface {
	// attach has two programs, of ingress and of egress, at an interface. It reports
	// whether they had to be put there, or why they cannot be while somebody else's
	// qdisc is there.
	attach(s *netlink.Socket, index int, programs [2]numbered) (reason string, written bool, err error)
	// detach takes flatnet's programs from an interface, if there are any or it is there,
	// be they an earlier flatnetd's.
	detach(s *netlink.Socket, index int) error
	// close lets go of what ends with flatnetd.
	close()
	// String is what the status calls it.
	String() string
}

// newAttacher returns the one for this kernel.
func newAttacher() attacher {
	if HasLinks() {
		return &links{}
	}
	return &filters{}
}

// othersDecide says who else decides at the egress of a pod's interface, which would be
// passed by; "" is nobody.
func (k *Keeper) othersDecide(s *netlink.Socket, p place) (reason string, err error) {
	all, err := listFilters(s, p.index, egressParent)
	if err != nil {
		return "", fmt.Errorf("listing filters: %w", err)
	}
	for _, f := range all {
		if !f.own {
			return fmt.Sprintf("somebody else's filter %s decides what the pod receives (tc filter show dev %s egress)", f.name, p.name), nil
		}
	}
	if others := otherPrograms(p.index, k.programs.learnPod.id); others > 0 {
		return fmt.Sprintf("%d programs of somebody else's decide what the pod receives (bpftool net show dev %s)", others, p.name), nil
	}
	return "", nil
}
