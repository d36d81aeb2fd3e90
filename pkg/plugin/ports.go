package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// Ports of the node are elements of a table of nftables (package ports). ADD sees to the
// table before it makes the wire, whose settings rely on the guard in it, and gives the
// ports when the pod can be reached; DEL takes them first.

// portsOf is what a record's attachment wants of the node's ports.
func portsOf(r attachment.Record) ports.Pod {
	name := r.Pod
	if name == "" {
		name = r.Key.String()
	}
	return ports.Pod{Name: name, Addresses: r.Wire.Addresses, Wanted: r.Ports}
}

// attached reports whether some pod has the address on this node.
func (j *job) attached(address netip.Addr) (bool, error) { return j.kernel.LeadsToPod(address) }

// needNftables is the hint where the kernel does not let a pod have its ports.
const needNftables = "the pod has ports of the node, which need nftables"

// givePorts gives the pod its ports.
func (j *job) givePorts(ctx context.Context, record attachment.Record) error {
	if record.Ports.IsZero() {
		return nil
	}
	for _, m := range record.Ports.Without(record.Wire.Addresses) {
		j.log.Warn("host port leads nowhere: the pod has no address of the family", "hostPort", m.String())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, errTooLong)
	defer cancel()
	err := j.ports.Add(ctx, portsOf(record))
	var conflict *ports.Conflict
	switch {
	case errors.As(err, &conflict):
		return cni.Fail(cni.CodeUnavailable, conflict.Error(),
			"delete one of the two pods, or give one of them another hostPort or hostIP")
	case errors.Is(err, errTooLong):
		return cni.Fail(cni.CodeTryAgain, fmt.Sprintf("other processes have held %s for %s", j.ports.Lock, lockTimeout), "find them with fuser or lsof")
	case err != nil:
		return cni.Wrap(cni.CodeKernel, err, needNftables)
	}
	if err := j.endStale(record); err != nil {
		// As good as what portmap does: the pod is attached.
		j.log.Warn("flows to the node's ports from before may go on to their old ends", "error", err)
	}
	return nil
}

// takePorts takes the pod's ports from it. Another pod's stay.
func (j *job) takePorts(ctx context.Context, record attachment.Record) (settle func(), err error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), lockTimeout, errTooLong)
	defer cancel()
	settle, err = j.ports.Remove(ctx, portsOf(record))
	return settle, removed(err)
}

// returnPorts is takePorts for who undoes.
func (j *job) returnPorts(ctx context.Context, record attachment.Record) error {
	settle, err := j.takePorts(ctx, record)
	settle()
	return err
}

// endStale ends flows without connections to ports that have changed hands: the kernel
// would have them go on to the node itself, or to a pod that is gone. Those of TCP end by
// themselves.
func (j *job) endStale(record attachment.Record) error {
	byProtocol := map[string][]ports.Mapping{}
	for _, m := range record.Ports.Mappings {
		if m.Protocol != "tcp" {
			byProtocol[m.Protocol] = append(byProtocol[m.Protocol], m)
		}
	}
	var errs []error
	for protocol, mappings := range byProtocol {
		number, _ := ports.ProtocolNumber(protocol)
		_, err := conntrack.Forget(number, func(f conntrack.Flow) bool { return j.isStale(f, mappings, record.Wire.Addresses) })
		if err != nil && !lacks(requirements.Forgetting) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (j *job) isStale(f conntrack.Flow, mappings []ports.Mapping, pod []netip.Addr) bool {
	if slices.Contains(pod, f.Answering.Addr()) {
		return false
	}
	to := f.Destination.Addr()
	return slices.ContainsFunc(mappings, func(m ports.Mapping) bool {
		if m.HostPort != f.Destination.Port() || m.HostIP.IsValid() && m.HostIP.Is6() != to.Is6() {
			return false
		}
		if m.HostIP.IsValid() && !m.HostIP.IsUnspecified() {
			return m.HostIP == to
		}
		local, err := j.kernel.IsLocal(to)
		return err == nil && local
	})
}

// RestorePorts makes again what somebody has taken from the ports of the pods that are
// attached, and takes away those of pods that are not. It is no CNI verb: the node agent
// calls it, for all networks of the state directory.
func (p *Plugin) RestorePorts(ctx context.Context, r *cni.Request) (done ports.Restored, err error) {
	j, err := p.begin(r)
	if err != nil {
		return done, err
	}
	defer j.end(&err)
	if err := j.openKernel(); err != nil {
		return done, err
	}
	records, err := j.records.List("")
	if err != nil {
		return done, cni.Wrap(cni.CodeState, err, "look at the permissions of stateDir")
	}
	var attached []ports.Pod
	for _, record := range records {
		if record.Ports.IsZero() {
			continue
		}
		if made, err := j.isMade(record); err != nil {
			return done, err
		} else if made {
			attached = append(attached, portsOf(record))
		}
	}
	done, err = j.ports.Restore(ctx, attached)
	if errors.Is(err, unix.ENOENT) {
		return done, nil // the last pod took the table along meanwhile
	}
	return done, cni.Wrap(cni.CodeKernel, err, "")
}
