package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// Check compares the attachment with the kernel, the nftables rules and the
// reservations (SPEC.md, "CHECK"). The error lists everything that differs.
func (p *Plugin) Check(ctx context.Context, r *cni.Request) (err error) {
	j, err := p.begin(r)
	if err != nil {
		return err
	}
	defer j.end(&err)
	if j.config.PrevResult == nil {
		return cni.Fail(types.ErrInvalidNetworkConfig, "missing prevResult", "CHECK needs the result of ADD (SPEC.md, \"CHECK\")")
	}
	if err := j.openNamespace(); err != nil {
		return j.namespaceError(err)
	}
	if err := j.openKernel(); err != nil {
		return err
	}
	record, recorded := j.records.Get(j.key)
	if !recorded {
		return cni.Fail(cni.CodeCheck, fmt.Sprintf("no attachment %s is recorded in %s", j.key, j.config.StateDirectory),
			"delete the pod, so that it is made anew")
	}
	if err := j.compareResult(&record); err != nil {
		return err
	}
	problems := errors.Join(record.Wire.Check(j.kernel), j.unguarded(need(record), j.rules.Check), j.ports.Check(portsOf(record)))
	if problems != nil {
		return cni.Fail(cni.CodeCheck, "attachment differs from what ADD made: "+problems.Error(),
			"run the command shown for each, or delete the pod, so that it is made anew")
	}
	return j.source().Check(ctx, record.Wire.Addresses)
}

// compareResult compares the result that the runtime kept with the record. What
// plugins behind this one in the chain may change, and say so in the result, is
// taken over: the pod's MAC address.
func (j *job) compareResult(record *attachment.Record) error {
	index := slices.IndexFunc(j.config.PrevResult.Interfaces, func(i *current.Interface) bool {
		return i.Name == j.request.IfName && i.Sandbox == j.request.Netns
	})
	if index < 0 {
		return cni.Fail(cni.CodeCheck, fmt.Sprintf("prevResult has no interface %s in sandbox %s", j.request.IfName, j.request.Netns),
			"CHECK needs the result of ADD for the same CNI_IFNAME and CNI_NETNS")
	}
	if mac := j.config.PrevResult.Interfaces[index].Mac; mac != "" {
		var changed kernel.MAC
		if err := changed.UnmarshalText([]byte(mac)); err != nil {
			return cni.Fail(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid prevResult: MAC address %q of interface %s", mac, j.request.IfName), "")
		}
		if changed != record.Wire.Pod.MAC {
			record.Wire.ChangedMAC = changed
		}
	}
	previous := j.previousAddresses()
	for _, a := range record.Wire.Addresses {
		if !slices.Contains(previous, a) {
			return cni.Fail(cni.CodeCheck, fmt.Sprintf("prevResult lacks address %s, which the attachment was given", a), "")
		}
	}
	for i, ip := range j.config.PrevResult.IPs {
		if ip.Interface != nil && *ip.Interface == index && !slices.Contains(record.Wire.Addresses, previous[i]) {
			return cni.Fail(cni.CodeCheck, fmt.Sprintf("prevResult has address %s, which the attachment was not given", previous[i]), "")
		}
	}
	return nil
}
