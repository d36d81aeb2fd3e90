// Package ipamplugin is flatnet-ipam: the built-in allocator as an IPAM plugin,
// for use under other main plugins, in place of host-local.
package ipamplugin

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/addresses"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// Plugin implements [cni.Verbs].
type Plugin struct{}

var _ cni.Verbs = Plugin{}

// begin reads the configuration; whatever ipam.type says, this is the plugin.
func (Plugin) begin(r *cni.Request) (*addresses.BuiltIn, *netconf.Config, error) {
	config, _, err := netconf.ParseIPAM(r)
	if err != nil {
		return nil, nil, err
	}
	living := &namespace.Living{}
	options := addresses.Options{Gone: func(r ipam.Reservation) bool {
		return living.Gone(r.Sandbox.Path, namespace.Identity{Device: r.Sandbox.Device, Inode: r.Sandbox.Inode})
	}}
	sandbox, err := namespace.Open(r.Netns)
	switch {
	case err == nil:
		id := sandbox.Identity()
		sandbox.Close()
		options.Sandbox = ipam.Sandbox{Path: r.Netns, Device: id.Device, Inode: id.Inode}
	case errors.Is(err, namespace.ErrOwn) && (r.Command == "ADD" || r.Command == "DEL"):
		return nil, nil, cni.Fail(types.ErrInvalidNetNS, "CNI_NETNS "+r.Netns+": "+err.Error(), "CNI_NETNS has to be the path of the pod's network namespace")
	}
	return addresses.NewBuiltIn(r, config, options), config, nil
}

// Add reserves an address out of every range set.
func (p Plugin) Add(ctx context.Context, r *cni.Request) (*current.Result, error) {
	source, _, err := p.begin(r)
	if err != nil {
		return nil, err
	}
	lease, err := source.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return lease.Result(), nil
}

// Del gives the attachment's addresses back.
func (p Plugin) Del(ctx context.Context, r *cni.Request) error {
	source, _, err := p.begin(r)
	if err != nil {
		return err
	}
	return source.Release(ctx)
}

// Check reports whether the attachment holds an address; with prevResult, it
// has to be those of the result that are of this network's ranges.
func (p Plugin) Check(ctx context.Context, r *cni.Request) error {
	source, config, err := p.begin(r)
	if err != nil {
		return err
	}
	return source.Check(ctx, config.PreviousInPool())
}

// GC gives back the addresses of attachments that are not to be kept.
func (p Plugin) GC(ctx context.Context, r *cni.Request) error {
	source, _, err := p.begin(r)
	if err != nil {
		return err
	}
	return source.Collect(ctx)
}

// Status reports whether an address is free in every range set.
func (p Plugin) Status(ctx context.Context, r *cni.Request) error {
	source, _, err := p.begin(r)
	if err != nil {
		return err
	}
	return source.Status(ctx)
}
