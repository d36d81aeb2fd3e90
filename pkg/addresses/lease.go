// Package addresses gets a pod's addresses: from the built-in allocator, in
// process, or from another IPAM plugin, which is executed by the rules of
// delegation (SPEC.md, section 4).
package addresses

import (
	"context"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// Lease is what IPAM gave an attachment.
type Lease struct {
	IPs    []IP
	Routes []*types.Route
	DNS    types.DNS
}

// IP is an address with the length of its subnet, and the subnet's gateway, if
// it has one.
type IP struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Source is where addresses come from.
type Source interface {
	// Acquire reserves addresses, at least one. Where it fails, none are
	// reserved.
	Acquire(context.Context) (*Lease, error)
	// Release gives back what the attachment holds; nothing is no error.
	Release(context.Context) error
	// Check reports whether the attachment still holds these addresses.
	Check(context.Context, []netip.Addr) error
	// Collect gives back what attachments hold that are not to be kept.
	Collect(context.Context) error
	// Status reports whether Acquire could succeed.
	Status(context.Context) error
}

// From returns the source that the configuration names.
func From(r *cni.Request, c *netconf.Config, options Options) Source {
	if c.IPAM.Type == "" {
		return NewBuiltIn(r, c, options)
	}
	return &delegate{request: r, plugin: c.IPAM.Type}
}

// Result returns the lease as the result of an IPAM plugin: no interfaces.
func (l *Lease) Result() *current.Result {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: l.Routes, DNS: l.DNS}
	for _, ip := range l.IPs {
		config := &current.IPConfig{Address: toIPNet(ip.Prefix)}
		if ip.Gateway.IsValid() {
			config.Gateway = ip.Gateway.AsSlice()
		}
		result.IPs = append(result.IPs, config)
	}
	return result
}
