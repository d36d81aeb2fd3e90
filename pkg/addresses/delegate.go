package addresses

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// delegate executes another IPAM plugin with the environment and the complete
// configuration of this one.
type delegate struct {
	request *cni.Request
	plugin  string
}

// Acquire implements [Source]. Where the plugin fails, or its result is of no
// use, it is run again with DEL, as the specification demands.
func (d *delegate) Acquire(ctx context.Context) (*Lease, error) {
	lease, err := d.add(ctx)
	if err != nil {
		return nil, errors.Join(err, d.Release(ctx))
	}
	return lease, nil
}

func (d *delegate) add(ctx context.Context) (*Lease, error) {
	output, err := d.run(ctx, "ADD")
	if err != nil {
		return nil, err
	}
	unusable := func(reason string) error {
		return cni.Fail(cni.CodeDelegate, fmt.Sprintf("IPAM plugin %s: unusable result: %s", d.plugin, reason), "")
	}
	raw, err := create.CreateFromBytes(output)
	if err != nil {
		// A result before 1.0.0 need not repeat the version.
		if raw, err = create.Create(d.request.Version, output); err != nil {
			return nil, unusable(err.Error())
		}
	}
	result, err := current.NewResultFromResult(raw)
	if err != nil {
		return nil, unusable(err.Error())
	}
	lease := &Lease{Routes: result.Routes, DNS: result.DNS}
	for _, ip := range result.IPs {
		prefix, ok := fromIPNet(ip.Address)
		if !ok {
			return nil, unusable(fmt.Sprintf("address %s", ip.Address.String()))
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		lease.IPs = append(lease.IPs, IP{Prefix: prefix, Gateway: gateway.Unmap()})
	}
	if len(lease.IPs) == 0 {
		return nil, unusable("no address")
	}
	for _, r := range lease.Routes {
		if err := netconf.ValidateRoute(r); err != nil {
			return nil, unusable(fmt.Sprintf("route to %s: %v", r.Dst.String(), err))
		}
	}
	return lease, nil
}

// Release implements [Source].
func (d *delegate) Release(ctx context.Context) error { return d.verb(ctx, "DEL") }

// Check implements [Source]; the plugin finds the addresses in prevResult.
func (d *delegate) Check(ctx context.Context, _ []netip.Addr) error { return d.verb(ctx, "CHECK") }

// Collect implements [Source].
func (d *delegate) Collect(ctx context.Context) error { return d.verb(ctx, "GC") }

// Status implements [Source].
func (d *delegate) Status(ctx context.Context) error { return d.verb(ctx, "STATUS") }

func (d *delegate) verb(ctx context.Context, verb string) error {
	_, err := d.run(ctx, verb)
	return err
}

// run executes the plugin and returns its standard output.
func (d *delegate) run(ctx context.Context, verb string) ([]byte, error) {
	if d.request.Path == "" {
		return nil, cni.Fail(types.ErrInvalidEnvironmentVariables, "required env variables [CNI_PATH] missing",
			fmt.Sprintf("ipam.type %q is a plugin that has to be executed", d.plugin))
	}
	e := cni.Execution{
		Request: d.request, Kind: "IPAM plugin", Plugin: d.plugin, Config: d.request.Config,
		Missing: "install it, or leave ipam.type away to use the built-in allocator",
	}
	return e.Run(ctx, verb)
}

func fromIPNet(n net.IPNet) (netip.Prefix, bool) {
	address, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	address = address.Unmap()
	if bits == 128 && address.Is4() {
		ones -= 96
	}
	prefix := netip.PrefixFrom(address, ones)
	return prefix, ok && bits > 0 && prefix.IsValid()
}
