package plugin

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// What the kernel has is asked after it has refused something, and by STATUS: an
// ADD that goes well asks nothing.

// lacks asks the kernel whether a part cannot work.
func lacks(p requirements.Part) bool {
	return requirements.Check(requirements.Running{}, p).Lacks(p)
}

// parts are those that the pod needs, or every pod of the network.
func (j *job) parts() []requirements.Part {
	parts := []requirements.Part{requirements.Pods}
	if j.config.PodDevice == kernel.Netkit {
		parts = append(parts, requirements.Netkit)
	}
	for _, ipv6 := range j.poolFamilies() {
		if ipv6 {
			parts = append(parts, requirements.IPv6)
		}
	}
	if j.config.IPMasq {
		parts = append(parts, requirements.IPMasq)
	}
	if !j.config.Ports.IsZero() {
		parts = append(parts, requirements.HostPorts)
	}
	if b := j.config.Bandwidth; b != nil && len(b.Shaped)+len(b.Unshaped) > 0 {
		parts = append(parts, requirements.NetworkRates)
	} else if b != nil {
		parts = append(parts, requirements.Rates)
	}
	return parts
}

// explained gives an error of the kernel's the sentence of what the kernel lacks,
// where that is the reason.
func (j *job) explained(err error) error {
	if err == nil || cni.Code(err) != cni.CodeKernel {
		return err
	}
	missing := requirements.Check(requirements.Running{}, j.parts()...).Missing
	if len(missing) == 0 {
		return err
	}
	message, _ := cni.Texts(err)
	return cni.Fail(cni.CodeKernel, fmt.Sprintf("%s (%s)", missing[0], message), missing[0].Hint())
}

// able says with code 50 why no pod can be attached, for all that takes less
// than a millisecond to know. Whether nftables has an expression is not among
// that: only ADD says so, and flatnetd.
func (j *job) able() error {
	missing := requirements.Check(requirements.Running{Brief: true}, j.parts()...).Missing
	if len(missing) == 0 {
		return nil
	}
	return cni.Fail(types.ErrPluginNotAvailable, missing[0].String(), missing[0].Hint())
}

// unguarded calls f with what an attachment needs of the rules. Where that fails
// and the kernel has nothing that could guard IPv6 sources, it is called again
// without the guard: the pod is attached nevertheless.
func (j *job) unguarded(n rules.Need, f func(rules.Need) error) error {
	err := f(n)
	if err == nil || !n.Guarded() {
		return err
	}
	report := requirements.Check(requirements.Running{}, requirements.Guard6)
	if !report.Lacks(requirements.Guard6) {
		return err
	}
	n.Unguarded = true
	if err := f(n); err != nil {
		return err
	}
	if j.request.Command != "ADD" {
		return nil // it was said then
	}
	j.log.Warn("IPv6 sources of the pod are not checked", "because", report.Missing[0].String(), "hint", report.Missing[0].Hint())
	return nil
}

// removed is the error of a removal of rules, nil where the kernel cannot have
// any.
func removed(err error) error {
	if err != nil && !(requirements.Running{}).HasNftables() {
		return nil
	}
	return err
}

// forget forgets the connections of the pod's addresses, where the kernel can.
func forget(of []netip.Addr) error {
	err := conntrack.ForgetAddresses(of)
	if err != nil && lacks(requirements.Forgetting) {
		return nil // flatnetd says so
	}
	return err
}
