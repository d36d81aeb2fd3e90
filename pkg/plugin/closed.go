package plugin

import (
	"fmt"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/filelock"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// A pod that policies are about begins closed: flatnetd learns of it only when it is
// there, and by then it may have been reached. So ADD puts its addresses into a table
// that drops what begins (package closed), before there is a wire to reach it by;
// flatnetd takes them out when the pod's rules are in place. The record says so
// before it is done, for DEL and GC to find.

//
// Its address may have been another pod's, of which the rules of policies still speak:
// while flatnetd is away, for as long as that lasts. So where there are policies, ADD
// also evicts the addresses, of whatever pod they are.

// directions says how the pod is to be closed: by the list of namespaces that the
// network's configuration names. Without that name nothing is asked; what is attached
// for no pod of Kubernetes is never closed.
func (j *job) directions() []string {
	if j.config.Policies == "" {
		return nil
	}
	log := j.log.With("namespace", j.arguments.PodNamespace)
	list, err := closed.Read(j.config.Policies)
	j.policed = err != nil || list.Policed()
	if j.arguments.PodNamespace == "" {
		return nil
	}
	ingress, egress := list.Of(j.arguments.PodNamespace)
	if err != nil {
		log.Warn("nobody knows which policies there are, so the pod begins closed in both directions", "error", err)
		ingress, egress = true, true
	}
	if !ingress && !egress {
		return nil
	}
	var directions []string
	if ingress {
		directions = append(directions, closed.Ingress)
	}
	if egress {
		directions = append(directions, closed.Egress)
	}
	lock := netconf.AgentLock(j.config.StateDirectory)
	runs, err := filelock.Held(lock)
	switch {
	case err != nil: // who can be asked about the agent no more than about the policies
		log.Warn("whether flatnetd runs is unknown: the pod begins closed", "directions", directions, "error", err)
	case runs:
	case list.WithoutAgent == closed.BeOpen:
		log.Warn("the pod is not closed although policies are about it: no flatnetd runs, and withoutAgent is open",
			"directions", directions, "lock", lock, "policies", j.config.Policies)
		return nil
	default:
		log.Warn("the pod stays closed until flatnetd runs, which opens it when its policies are in place",
			"directions", directions, "lock", lock)
	}
	return directions
}

// shut closes the pod as its record says, and makes its addresses those of somebody
// new. An ADD does it once: flatnetd may open the pod at any time after that. Whoever
// clears the table must be kept out (see share).
func (j *job) shut(record attachment.Record) error {
	begin := j.closed.Close
	if j.policed {
		begin = j.closed.Begin
	}
	err := begin(record.Wire.Addresses, slices.Contains(record.Closed, closed.Ingress), slices.Contains(record.Closed, closed.Egress))
	return cni.Wrap(cni.CodeKernel, err, "there are policies, and until they are in place for the pod nftables has to keep it closed, and from what whoever had its address before was allowed")
}

// open lets go of the addresses of a pod that began closed, for their next holder.
func (j *job) open(record attachment.Record) error {
	if len(record.Closed) == 0 {
		return nil
	}
	if err := removed(j.closed.Open(record.Wire.Addresses...)); err != nil {
		return fmt.Errorf("letting go of the pod's addresses: %w", err)
	}
	return nil
}
