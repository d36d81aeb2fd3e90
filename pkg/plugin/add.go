package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/pkg/addresses"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Add attaches a pod (SPEC.md, "ADD"): address, record, rules, wire, ports of the
// node, in this order. Whatever fails, nothing is left of the steps before it; if the process
// is killed, DEL or GC finds all of it.
func (p *Plugin) Add(ctx context.Context, r *cni.Request) (result *current.Result, err error) {
	j, err := p.begin(r)
	if err != nil {
		return nil, err
	}
	defer j.end(&err)
	if err := j.openNamespace(); err != nil {
		return nil, j.namespaceError(err)
	}
	if err := j.openKernel(); err != nil {
		return nil, err
	}
	if err := j.refuseSecond(); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		lease, record, err := j.attach(ctx)
		var conflict *conflictError
		switch {
		case err == nil:
			return j.result(lease, record), nil
		case errors.As(err, &conflict) && attempt < maxAttempts && j.mayChooseAgain():
			// The address went to the end of the allocator's queue: the
			// next attempt gets another one.
			j.log.Warn("address is in use outside of this network, taking another", "error", err)
		case conflict != nil:
			return nil, cni.Fail(cni.CodeKernel, err.Error(),
				"another network uses the same addresses, or a route was left behind: look at `ip route` on the node")
		default:
			return nil, j.explained(err)
		}
	}
}

// maxAttempts bounds how many addresses are tried that others turn out to use.
const maxAttempts = 8

// conflictError says that the host has a route to an address already.
type conflictError struct{ error }

func (e *conflictError) Unwrap() error { return e.error }

// mayChooseAgain reports whether a next attempt would get another address.
func (j *job) mayChooseAgain() bool {
	return j.config.IPAM.Type == "" && len(j.config.IPAM.Requested) == 0
}

// refuseSecond fails where the pod has the interface already. An attachment
// that is there is left as it is (SPEC.md, "ADD").
func (j *job) refuseSecond() error {
	found, exists, err := j.kernel.FindLink(kernel.Pod, j.request.IfName)
	if err != nil {
		return cni.Wrap(cni.CodeKernel, err, "")
	}
	if exists {
		return cni.Fail(cni.CodeExists, fmt.Sprintf("pod has an interface %s already (of type %s)", found.Name, found.Kind),
			"DEL has to come before another ADD; a second network needs another CNI_IFNAME")
	}
	return nil
}

// attach does the work of one attempt, or leaves nothing.
func (j *job) attach(ctx context.Context) (_ *addresses.Lease, _ *attachment.Record, err error) {
	var steps undo
	defer func() {
		if err != nil {
			if undoErr := steps.run(); undoErr != nil {
				j.log.Error("undoing failed", "error", undoErr)
			}
		}
	}()
	source := j.source()
	lease, err := source.Acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	// The address goes back last, when no packet can go its old way any more,
	// and even if the time of the request is over.
	steps.push(func() error { return source.Release(context.WithoutCancel(ctx)) })

	record, err := j.plan(lease)
	if err != nil {
		return nil, nil, err
	}
	steps.push(func() error { return j.records.Delete(j.key) })
	if err := j.record(record, 0); err != nil {
		return nil, nil, err
	}
	steps.push(func() error {
		settle, err := j.rules.Remove(need(*record))
		defer settle()
		return errors.Join(removed(err), j.open(*record), j.unshare(*record))
	})
	if !record.Ports.IsZero() {
		release, err := j.ports.Hold()
		if err != nil {
			return nil, nil, cni.Wrap(cni.CodeKernel, err, needNftables)
		}
		defer release()
	}
	if err := j.share(*record); err != nil {
		return nil, nil, err
	}
	if err := j.connect(record); err != nil {
		return nil, nil, err
	}
	steps.push(func() error { return errors.Join(j.returnPorts(ctx, *record), record.Wire.Remove(j.kernel)) })
	if err := j.givePorts(ctx, *record); err != nil {
		return nil, nil, err
	}
	return lease, record, nil
}

// record writes down what is going to be made, under one of the names that the
// host interface may have.
func (j *job) record(record *attachment.Record, attempt int) error {
	record.Wire.Host.Name = j.key.HostInterface(j.config.HostInterfacePrefix, attempt)
	return cni.Wrap(cni.CodeState, j.records.Put(*record), "look at the permissions and the free space of stateDir")
}

// connect makes the wire, or leaves nothing of it. Two keys may share a host
// interface's name, by chance; then the next name is taken.
func (j *job) connect(record *attachment.Record) error {
	for attempt := 0; ; attempt++ {
		err := record.Wire.Apply(j.kernel)
		if err == nil {
			return nil
		}
		var step *wire.StepError
		if !errors.As(err, &step) || !errors.Is(err, kernel.ErrExists) {
			return cni.Wrap(cni.CodeKernel, err, "the kernel refused the change that the message begins with")
		}
		switch object := step.Object.(type) {
		case kernel.Pair:
			if attempt+1 < nameAttempts && j.nameTaken(record.Wire.Host.Name) {
				if err := j.record(record, attempt+1); err != nil {
					return err
				}
				continue
			}
			return cni.Wrap(cni.CodeExists, err, "DEL has to come before another ADD")
		case kernel.Route:
			if object.Side == kernel.Host {
				return &conflictError{fmt.Errorf("host has a route to %s already: %w", object.Destination, err)}
			}
			return cni.Wrap(cni.CodeKernel, err, "another interface of the pod has such a route: give ipam.routes for this network")
		}
		return cni.Wrap(cni.CodeKernel, err, "")
	}
}

// nameAttempts is how many names of host interfaces belong to a key.
const nameAttempts = 4

// nameTaken reports whether the host interface is another attachment's.
func (j *job) nameTaken(name string) bool {
	found, exists, err := j.kernel.FindLink(kernel.Host, name)
	return err == nil && exists && found.Alias != "" && !j.key.Owns(found.Alias)
}

// plan says what the attachment consists of.
func (j *job) plan(lease *addresses.Lease) (*attachment.Record, error) {
	mtu := j.config.MTU
	if mtu == 0 {
		var err error
		if mtu, err = j.kernel.UplinkMTU(); err != nil {
			return nil, cni.Wrap(cni.CodeKernel, err, "set mtu in the network configuration")
		}
	}
	host, pod := j.key.MACs()
	if j.config.MAC != nil {
		pod = kernel.MAC(j.config.MAC)
	}
	id := j.namespace.Identity()
	record := &attachment.Record{
		Key:     j.key,
		Sandbox: attachment.Sandbox{Path: j.request.Netns, Device: id.Device, Inode: id.Inode},
		Wire: wire.Wire{
			Host: kernel.End{MAC: host}, Pod: kernel.End{Name: j.request.IfName, MAC: pod},
			Alias: j.key.Alias(j.arguments.Pod()), MTU: mtu, Device: j.config.PodDevice, Bandwidth: j.config.Bandwidth, Clsact: j.config.Clsact,
		},
		IPAM: j.config.IPAM.Type, DataDir: j.config.IPAM.DataDirectory,
		Masquerade: j.config.IPMasq, Pod: j.arguments.Pod(), UID: j.arguments.UID,
		Ports: j.config.Ports, Closed: j.directions(), Since: time.Now().UTC().Truncate(time.Second),
	}
	if j.config.IPMasq {
		record.Exempt = append(subnets(lease), j.config.NonMasqueradeCIDRs...)
	}
	for i := range lease.IPs {
		ip := &lease.IPs[i]
		record.Wire.Addresses = append(record.Wire.Addresses, ip.Prefix.Addr())
		if !ip.Gateway.IsValid() {
			ip.Gateway = wire.NextHop(ip.Prefix.Addr())
		}
		// A gateway that the node itself has to go out to is a real router,
		// and stays it: the node must not answer in its place.
		elsewhere, err := j.kernel.OnLinkElsewhere(ip.Gateway)
		if err != nil {
			return nil, cni.Wrap(cni.CodeKernel, err, "")
		}
		if !elsewhere {
			record.Wire.Gateways = append(record.Wire.Gateways, ip.Gateway)
		}
	}
	record.Wire.Localnet = record.Ports.Localnet(record.Wire.Addresses)
	lease.Routes = routes(lease)
	for _, r := range lease.Routes {
		record.Wire.Routes = append(record.Wire.Routes, toWire(r))
	}
	return record, nil
}

// routes returns the pod's routes: those that IPAM gives, and in any case some
// that lead to the other pods of the network. Where IPAM gives none, these are
// default routes; otherwise routes to the subnets that the given ones leave out.
func routes(lease *addresses.Lease) []*types.Route {
	all := lease.Routes
	for _, ip := range lease.IPs {
		destination := ip.Prefix.Masked()
		if len(lease.Routes) == 0 {
			destination = netip.PrefixFrom(destination.Addr(), 0).Masked()
		}
		if !covered(destination, all) {
			all = append(all[:len(all):len(all)], &types.Route{
				Dst: net.IPNet{IP: destination.Addr().AsSlice(), Mask: net.CIDRMask(destination.Bits(), destination.Addr().BitLen())},
				GW:  wire.NextHop(destination.Addr()).AsSlice(),
			})
		}
	}
	return all
}

// covered reports whether a route in the main table leads to all of a network.
func covered(network netip.Prefix, routes []*types.Route) bool {
	for _, r := range routes {
		to := toWire(r)
		if to.Table == 0 && to.Destination.Bits() <= network.Bits() && to.Destination.Contains(network.Addr()) {
			return true
		}
	}
	return false
}

func toWire(r *types.Route) wire.Route {
	destination, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	gateway, _ := netip.AddrFromSlice(r.GW)
	w := wire.Route{
		Destination: netip.PrefixFrom(destination, ones), Gateway: gateway.Unmap(),
		MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Scope: r.Scope,
	}
	if r.Table != nil {
		w.Table = *r.Table
	}
	return w
}

// result says what was made (SPEC.md, "Success"), after what a plugin before
// this one in the chain made.
func (j *job) result(lease *addresses.Lease, record *attachment.Record) *current.Result {
	result := &current.Result{}
	if j.config.PrevResult != nil {
		result = j.config.PrevResult
	}
	result.CNIVersion = current.ImplementedSpecVersion
	pod := len(result.Interfaces) + 1
	w := record.Wire
	result.Interfaces = append(result.Interfaces,
		&current.Interface{Name: w.Host.Name, Mac: w.Host.MAC.String(), Mtu: w.MTU},
		&current.Interface{Name: w.Pod.Name, Mac: w.Pod.MAC.String(), Mtu: w.MTU, Sandbox: j.request.Netns},
	)
	for _, ip := range lease.IPs {
		bits := ip.Prefix.Addr().BitLen()
		result.IPs = append(result.IPs, &current.IPConfig{
			Interface: current.Int(pod),
			Address:   net.IPNet{IP: ip.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(bits, bits)},
			Gateway:   ip.Gateway.AsSlice(),
		})
	}
	result.Routes = append(result.Routes, lease.Routes...)
	if j.config.DNS != nil {
		result.DNS = *j.config.DNS
	} else if !lease.DNS.IsEmpty() {
		result.DNS = lease.DNS
	}
	return result
}
