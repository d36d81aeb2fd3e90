package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// Restore makes again what somebody has taken from the attachments that are
// there: routes and settings of the host's interfaces, gateways that the node
// answers to, nftables rules. It is no CNI verb: the node agent calls it, for
// all networks of the state directory. It returns what it has mended, as
// commands. What is in the pod's own namespace is the pod's affair.
func (p *Plugin) Restore(ctx context.Context, r *cni.Request) (repairs []string, err error) {
	return p.restoreAll(ctx, r, true)
}

// restoreUnlocked is Restore without what attachments share.
func (p *Plugin) restoreUnlocked(ctx context.Context, r *cni.Request) (repairs []string, err error) {
	return p.restoreAll(ctx, r, false)
}

func (p *Plugin) restoreAll(ctx context.Context, r *cni.Request, shared bool) (repairs []string, err error) {
	j, err := p.begin(r)
	if err != nil {
		return nil, err
	}
	defer j.end(&err)
	if err := j.openKernel(); err != nil {
		return nil, err
	}
	records, err := j.records.List("")
	if err != nil {
		return nil, cni.Wrap(cni.CodeState, err, "look at the permissions of stateDir")
	}
	var errs []error
	var present []attachment.Record
	for _, record := range records {
		if ctx.Err() != nil {
			return repairs, ctx.Err()
		}
		if made, err := j.isMade(record); err != nil {
			return repairs, err
		} else if !made {
			continue
		}
		present = append(present, record)
		for _, object := range hostObjects(record) {
			mended, err := j.restore(object)
			if mended {
				repairs = append(repairs, object.String())
			}
			errs = append(errs, err)
		}
	}
	if len(present) > 0 && shared {
		more, err := j.restoreShared(present)
		repairs = append(repairs, more...)
		errs = append(errs, err)
	}
	return repairs, cni.Wrap(cni.CodeKernel, errors.Join(errs...), "")
}

// isMade reports whether an attachment is neither being made nor being removed.
func (j *job) isMade(record attachment.Record) (bool, error) {
	found, exists, err := j.kernel.FindLink(kernel.Host, record.Wire.Host.Name)
	if err != nil {
		return false, cni.Wrap(cni.CodeKernel, err, "")
	}
	return exists && record.Owns(found.Alias) && finished(j.kernel, record), nil
}

// finished reports whether an attachment is made, as far as that can be seen
// from the host. To make a route for one that is being made would be in its way.
func finished(k *kernel.Netlink, record attachment.Record) bool {
	const longerThanAnyADD = time.Minute
	if time.Since(record.Since) > longerThanAnyADD {
		return true
	}
	// The entries are the last that is made on the host.
	for _, a := range record.Wire.Addresses {
		known, err := k.KnowsNeighbour(record.Wire.Host.Name, a)
		if err != nil || !known {
			return false
		}
	}
	return true
}

// hostObjects returns what of an attachment is on the host and can be lost
// while its interface stays. Neighbour entries are not among them: the kernel
// resolves them anew.
func hostObjects(record attachment.Record) []kernel.Object {
	return slices.DeleteFunc(record.Wire.Objects(), func(o kernel.Object) bool {
		if side, link := o.Dependence(); side != kernel.Host || link == "" {
			return true
		}
		switch o.(type) {
		case kernel.Settings, kernel.Shaper, kernel.Up, kernel.Address, kernel.Route:
			return false
		}
		return true
	})
}

// restore makes an object where it is not as it should be. A packet that the
// kernel cannot be asked about is not lost for certain, so an error is none.
func (j *job) restore(object kernel.Object) (mended bool, err error) {
	err = j.kernel.Inspect(object)
	var difference *kernel.Difference
	if !errors.As(err, &difference) {
		return false, err
	}
	err = j.kernel.Make(object)
	if errors.Is(err, kernel.ErrExists) {
		return false, fmt.Errorf("%w: something else has its place", difference)
	}
	if err != nil {
		return false, err
	}
	j.log.Warn("restored what somebody had changed", "object", object.String(), "found", difference.Found)
	return true, nil
}

// restoreShared does the same for what attachments share.
func (j *job) restoreShared(records []attachment.Record) (repairs []string, err error) {
	var objects []kernel.Object
	var masqueraded, plain rules.Need
	for _, record := range records {
		for _, o := range record.Wire.Shared() {
			if !slices.Contains(objects, o) {
				objects = append(objects, o)
			}
		}
		of := &plain
		if record.Masquerade {
			of, masqueraded.Masquerade = &masqueraded, true
		}
		n := need(record)
		of.Addresses = append(of.Addresses, n.Addresses...)
		for _, exempt := range n.Exempt {
			if !slices.Contains(of.Exempt, exempt) {
				of.Exempt = append(of.Exempt, exempt)
			}
		}
	}
	slices.SortFunc(masqueraded.Addresses, netip.Addr.Compare)
	err = j.alone(func() bool { return true }, func() error {
		var errs []error
		for _, o := range objects {
			mended, err := j.restore(o)
			if mended {
				repairs = append(repairs, o.String())
			}
			errs = append(errs, err)
		}
		for _, n := range []rules.Need{masqueraded, plain} {
			if damage := j.unguarded(n, j.rules.Check); damage != nil {
				j.log.Warn("restoring nftables rules of pods", "found", damage)
				if err := j.unguarded(n, j.rules.Rebuild); err != nil {
					errs = append(errs, err)
				} else {
					repairs = append(repairs, "nft: "+damage.Error())
				}
			}
		}
		return errors.Join(errs...)
	})
	return repairs, err
}
