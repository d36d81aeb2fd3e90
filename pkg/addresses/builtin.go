package addresses

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// Options are the surroundings of the built-in allocator.
type Options struct {
	Log     *slog.Logger
	Sandbox ipam.Sandbox // the pod's network namespace, where it is known
	// Gone says whether a reservation's pod provably does not exist any more.
	Gone func(ipam.Reservation) bool
	// Step is called before every change on the disk; see [ipam.Options].
	Step func(operation string) error
}

// BuiltIn is the built-in allocator, for one attachment.
type BuiltIn struct {
	request *cni.Request
	config  *netconf.Config
	options Options
	owner   ipam.Owner
}

// NewBuiltIn returns the allocator for a request.
func NewBuiltIn(r *cni.Request, c *netconf.Config, o Options) *BuiltIn {
	return &BuiltIn{
		request: r, config: c, options: o,
		owner: ipam.Owner{ContainerID: r.ContainerID, Interface: r.IfName},
	}
}

func (b *BuiltIn) open() (*ipam.Store, error) {
	store, err := ipam.Open(ipam.Options{
		Directory: b.config.IPAM.DataDirectory, Network: b.config.Network,
		Log: b.options.Log, Step: b.options.Step,
	})
	if err != nil {
		return nil, typed(err)
	}
	return store, nil
}

// Acquire implements [Source].
func (b *BuiltIn) Acquire(ctx context.Context) (*Lease, error) {
	lease := &Lease{Routes: b.config.IPAM.Routes}
	if path := b.config.IPAM.ResolvConf; path != "" {
		dns, err := readResolvConf(path)
		if err != nil {
			return nil, cni.Fail(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("invalid ipam.resolvConf %q: %v", path, err), "name a readable file in the form of resolv.conf")
		}
		lease.DNS = *dns
	}
	store, err := b.open()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	allocations, err := store.Allocate(ctx, ipam.Request{
		Owner: b.owner, Sandbox: b.options.Sandbox, Pool: b.config.IPAM.Pool,
		Requested: b.config.IPAM.Requested, Gone: b.provablyGone(),
	})
	if err != nil {
		return nil, typed(err)
	}
	for _, a := range allocations {
		lease.IPs = append(lease.IPs, IP{Prefix: a.Address, Gateway: a.Gateway})
	}
	return lease, nil
}

// Release implements [Source].
func (b *BuiltIn) Release(ctx context.Context) error {
	if b.absent() {
		return nil
	}
	store, err := b.open()
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Release(ctx, b.owner)
	return typed(err)
}

// Held returns what the attachment holds.
func (b *BuiltIn) Held(ctx context.Context) ([]netip.Addr, error) {
	if b.absent() {
		return nil, nil
	}
	store, err := b.open()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	held, err := store.Lookup(ctx, b.owner)
	return held, typed(err)
}

// absent reports whether the network has no state at all. To look whether there
// is something must not make it.
func (b *BuiltIn) absent() bool {
	_, err := os.Stat(b.config.IPAM.DataDirectory + "/" + b.config.Network)
	return errors.Is(err, fs.ErrNotExist)
}

// Check implements [Source].
func (b *BuiltIn) Check(ctx context.Context, addresses []netip.Addr) error {
	held, err := b.Held(ctx)
	if err != nil {
		return err
	}
	if len(held) == 0 {
		return cni.Fail(cni.CodeCheck, fmt.Sprintf("no address is reserved for %s in %s", b.owner, b.directory()), "delete the pod, so that it is made anew")
	}
	for _, a := range addresses {
		if !slices.Contains(held, a) {
			return cni.Fail(cni.CodeCheck, fmt.Sprintf("address %s is not reserved for %s in %s", a, b.owner, b.directory()), "delete the pod, so that it is made anew")
		}
	}
	return nil
}

func (b *BuiltIn) directory() string { return b.config.IPAM.DataDirectory + "/" + b.config.Network }

// Collect implements [Source]. Without a list of what is valid, only that goes
// whose pod provably has.
func (b *BuiltIn) Collect(ctx context.Context) error {
	if b.absent() {
		return nil
	}
	stale := b.provablyGone()
	if valid := b.config.ValidAttachments; valid != nil {
		stale = func(r ipam.Reservation) bool {
			return !slices.ContainsFunc(*valid, func(a types.GCAttachment) bool {
				// Old versions of host-local recorded no interface.
				return a.ContainerID == r.Owner.ContainerID && (a.IfName == r.Owner.Interface || r.Owner.Interface == "")
			})
		}
	}
	store, err := b.open()
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Collect(ctx, stale)
	return typed(err)
}

func (b *BuiltIn) provablyGone() func(ipam.Reservation) bool {
	return func(r ipam.Reservation) bool {
		// A reservation of another program does not say which namespace it is for.
		return b.options.Gone != nil && r.Sandbox.Inode != 0 && b.options.Gone(r)
	}
}

// Status implements [Source]: code 50 where no address is free.
func (b *BuiltIn) Status(ctx context.Context) error {
	store, err := b.open()
	if err != nil {
		return notAvailable(err)
	}
	defer store.Close()
	return notAvailable(typed(store.HasFree(ctx, b.config.IPAM.Pool)))
}

func notAvailable(err error) error {
	if err == nil {
		return nil
	}
	return cni.Fail(types.ErrPluginNotAvailable, err.Error(), "pods cannot be added now; those that run are not affected")
}

// typed gives the allocator's errors their CNI codes, and says what to do.
func typed(err error) error {
	var (
		exhausted *ipam.ExhaustedError
		duplicate *ipam.DuplicateError
		taken     *ipam.TakenError
		outside   *ipam.OutsideError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ipam.ErrLocked), errors.Is(err, context.DeadlineExceeded):
		return cni.Fail(types.ErrTryAgainLater, err.Error(), "another process holds the lock of the allocator")
	case errors.As(err, &exhausted):
		return cni.Fail(cni.CodeExhausted, err.Error(), "widen the range, or look for leaked reservations in ipam.dataDir")
	case errors.As(err, &duplicate):
		return cni.Fail(cni.CodeExists, err.Error()+"; duplicate allocation is not allowed", "DEL has to come before another ADD")
	case errors.As(err, &taken), errors.As(err, &outside):
		return cni.Fail(cni.CodeUnavailable, err.Error(), "ask for another address, or for none")
	}
	return cni.Wrap(cni.CodeState, err, "look at the permissions and the free space of ipam.dataDir")
}

func toIPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
