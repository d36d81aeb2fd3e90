package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/addresses"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Del detaches a pod (SPEC.md, "DEL"), as often as it is called and whatever is
// left of the attachment. It works from the host's side: the pod's namespace
// may be gone, or be another pod's by now. The order is that of safety: when
// the address is free again, nothing leads to its old holder any more.
func (p *Plugin) Del(ctx context.Context, r *cni.Request) (err error) {
	j, err := p.begin(r)
	if err != nil {
		return err
	}
	defer j.end(&err)
	// Any namespace but the plugin's own will do, and none as well.
	if err := j.openNamespace(); errors.Is(err, namespace.ErrOwn) {
		return j.namespaceError(err)
	}
	if err := j.openKernel(); err != nil {
		return err
	}
	return j.detach(ctx)
}

// detach removes the attachment of the job's key.
func (j *job) detach(ctx context.Context) error {
	record, recorded := j.records.Get(j.key)
	if err := j.endPortmap(ctx, recorded && !record.Ports.IsZero()); err != nil {
		return err
	}
	if !recorded {
		var err error
		if record, err = j.reconstruct(ctx); err != nil {
			return err
		}
	}
	if err := j.disconnect(ctx, record); err != nil {
		return cni.Wrap(cni.CodeKernel, err, "the address stays reserved until DEL succeeds")
	}
	if err := j.release(ctx, record, recorded); err != nil {
		return err
	}
	return cni.Wrap(cni.CodeState, j.records.Delete(j.key), "look at the permissions of stateDir")
}

// disconnect removes everything in the kernel that leads to the pod. Elements
// of sets go first: the kernel's waiting for it then happens beside its
// waiting for the interface.
func (j *job) disconnect(ctx context.Context, record attachment.Record) error {
	settle, err := j.rules.Remove(need(record))
	defer settle()
	if err := removed(err); err != nil {
		return err
	}
	settlePorts, err := j.takePorts(ctx, record)
	defer settlePorts()
	if err != nil {
		return err
	}
	if err := j.removeInterfaces(record); err != nil {
		return err
	}
	// Only now: a pod that is still there must not be opened by its end.
	if err := j.open(record); err != nil {
		return err
	}
	if err := j.unshare(record); err != nil {
		return err
	}
	return forget(record.Wire.Addresses)
}

// reconstruct says what an attachment without a record can consist of: it was
// never made, is deleted already, was made by another plugin before flatnet
// took the node over, or its record was lost.
func (j *job) reconstruct(ctx context.Context) (attachment.Record, error) {
	host, pod := j.key.MACs()
	record := attachment.Record{
		Key: j.key, IPAM: j.config.IPAM.Type, DataDir: j.config.IPAM.DataDirectory, Masquerade: j.config.IPMasq, Ports: j.config.Ports,
		Wire: wire.Wire{Host: kernel.End{MAC: host}, Pod: kernel.End{Name: j.request.IfName, MAC: pod}},
	}
	if j.config.IPAM.Type != "" {
		// These may be another pod's by now: it is not opened for their sake.
		if j.config.PrevResult != nil {
			record.Wire.Addresses = j.previousAddresses()
		}
		return record, nil
	}
	held, err := addresses.NewBuiltIn(j.request, j.config, j.options()).Held(ctx)
	record.Wire.Addresses = held
	if j.config.Policies != "" {
		record.Closed = []string{closed.Ingress, closed.Egress}
	}
	return record, err
}

// previousAddresses returns the addresses that prevResult has for the pod.
func (j *job) previousAddresses() []netip.Addr {
	var all []netip.Addr
	for _, ip := range j.config.PrevResult.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// removeInterfaces removes the host interfaces that are the attachment's own;
// their other ends go with them.
func (j *job) removeInterfaces(record attachment.Record) error {
	names, err := j.hostInterfaces(record)
	if err != nil {
		return err
	}
	for _, name := range names {
		own := record.Wire
		own.Host.Name = name
		if err := own.Remove(j.kernel); err != nil {
			return err
		}
	}
	if len(names) > 0 || record.Wire.Host.Name != "" || j.namespace == nil || len(record.Wire.Addresses) == 0 {
		return nil
	}
	return j.removeForeign(record)
}

// hostInterfaces returns the interfaces on the host that are the attachment's
// own: the one that is recorded, or else any with a name that it may have.
func (j *job) hostInterfaces(record attachment.Record) ([]string, error) {
	candidates := []string{record.Wire.Host.Name}
	if record.Wire.Host.Name == "" {
		candidates = nil
		for attempt := range nameAttempts {
			candidates = append(candidates, j.key.HostInterface(j.config.HostInterfacePrefix, attempt))
		}
	}
	var own []string
	for _, name := range candidates {
		found, exists, err := j.kernel.FindLink(kernel.Host, name)
		if err != nil {
			return nil, fmt.Errorf("looking for interface %s: %w", name, err)
		}
		if exists && j.owns(found) {
			own = append(own, name)
		}
	}
	return own, nil
}

// owns reports whether a host interface of the key's name is the key's own. One
// in flatnet's group without an alias is of an ADD that was killed right after
// it had made it.
func (j *job) owns(found kernel.Link) bool {
	return j.key.Owns(found.Alias) || found.Alias == "" && found.Group == kernel.Group
}

// removeForeign removes the pod's interface where another plugin made it, which
// is seen from an address on it that is reserved for this very attachment: the
// node was taken over with the pod running.
func (j *job) removeForeign(record attachment.Record) error {
	if record.IPAM != "" {
		return nil
	}
	own, err := j.kernel.HasAddress(kernel.Pod, j.request.IfName, record.Wire.Addresses)
	if err != nil || !own {
		return err
	}
	if err := j.kernel.DeleteLink(kernel.Pod, j.request.IfName); err != nil {
		return fmt.Errorf("deleting the pod's interface %s: %w", j.request.IfName, err)
	}
	return nil
}

// release gives the addresses back to where they came from, and to where the
// configuration says now, if that has changed since.
func (j *job) release(ctx context.Context, record attachment.Record, recorded bool) error {
	if recorded && record.IPAM == "" && (j.config.IPAM.Type != "" || record.DataDir != j.config.IPAM.DataDirectory) {
		then := *j.config
		then.IPAM.Type, then.IPAM.DataDirectory = "", record.DataDir
		if err := addresses.NewBuiltIn(j.request, &then, j.options()).Release(ctx); err != nil {
			return err
		}
	}
	return j.source().Release(ctx)
}
