package ports

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// List returns all ports that lead to pods, sorted by port, protocol and address. Those
// of all addresses have 0.0.0.0 or ::, so that one of both families is listed twice.
func (t *Table) List() (all []Taken, err error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	err = nft.Steadily(attempts, func() error {
		all, err = list(c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading nftables table %s: %w", ID, err)
	}
	slices.SortFunc(all, func(a, b Taken) int {
		if a.HostPort != b.HostPort {
			return int(a.HostPort) - int(b.HostPort)
		}
		if c := strings.Compare(a.Protocol, b.Protocol); c != 0 {
			return c
		}
		return a.HostIP.Compare(b.HostIP)
	})
	return all, nil
}

func list(c *nft.Conn) (all []Taken, err error) {
	for _, f := range families {
		for _, set := range []nft.Set{f.any(), f.one()} {
			found, err := elements(c, set)
			if err != nil {
				return nil, err
			}
			for _, e := range found {
				all = append(all, f.taken(set, e))
			}
		}
	}
	return all, nil
}

// Check reports what of the pod's ports is missing, or nil.
func (t *Table) Check(pod Pod) error {
	entries := pod.entries()
	if len(entries) == 0 {
		return nil
	}
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(checkChains(c), check(c, entries))
}

func checkChains(c *nft.Conn) error {
	var missing []error
	for _, want := range chains() {
		there, right, err := c.Chain(ID, want)
		switch {
		case err != nil:
			missing = append(missing, fmt.Errorf("reading nftables chain %s %s: %w", ID, want.Name, err))
		case !there:
			missing = append(missing, fmt.Errorf("nftables chain %s %s is missing", ID, want.Name))
		case !right:
			missing = append(missing, fmt.Errorf("nftables chain %s %s has other rules than flatnet's", ID, want.Name))
		}
	}
	return errors.Join(missing...)
}

func check(c *nft.Conn, entries []entry) error {
	var missing []error
	for _, e := range entries {
		found, is, err := c.Element(ID, e.set, e.element.Key)
		switch {
		case err != nil:
			missing = append(missing, err)
		case !is && e.isMapping():
			missing = append(missing, fmt.Errorf("nftables map %s %s lacks host port %s", ID, e.set.Name, e.mapping))
		case !is:
			missing = append(missing, fmt.Errorf("nftables set %s %s lacks element %s", ID, e.set.Name, e.set.Text(e.element)))
		case found.Value != e.element.Value:
			has := e.in.taken(e.set, found)
			missing = append(missing, fmt.Errorf("nftables map %s %s: host port %s leads to %s, which is not the pod's", ID, e.set.Name, e.mapping, has.Leads))
		}
	}
	return errors.Join(missing...)
}

// Restored is what [Table.Restore] has found and done.
type Restored struct {
	Repairs []string // what was mended, in words
	Refused []Refused
}

// Refused is a pod whose ports could not be given back.
type Refused struct {
	Pod string
	Err error // a [Conflict], or the kernel's
}

// Restore makes again what is missing of the pods' ports and of the rules, and takes
// away ports that lead to pods which are gone. A port that it cannot give back, since
// another pod has it, does not keep the others from being mended.
func (t *Table) Restore(ctx context.Context, pods []Pod) (done Restored, err error) {
	c, err := nft.Open()
	if err != nil {
		return done, err
	}
	defer c.Close()
	err = t.locked(ctx, func() error {
		if there, err := c.HasChain(ID, guardName); err != nil || !there && !wanted(pods) {
			return err
		}
		if damage := checkChains(c); errors.Is(damage, nft.ErrInterrupted) {
			return nil // what interrupts it brings the next look
		} else if damage != nil {
			if err := t.make(c); err != nil {
				return err
			}
			done.Repairs = append(done.Repairs, damage.Error())
		}
		for _, pod := range pods {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			entries := pod.entries()
			damage := check(c, entries)
			if damage == nil {
				continue
			}
			if err := t.add(c, entries); err != nil {
				done.Refused = append(done.Refused, Refused{pod.Name, err})
				continue
			}
			done.Repairs = append(done.Repairs, damage.Error())
		}
		swept, err := t.sweep(c, pods)
		done.Repairs = append(done.Repairs, swept...)
		return err
	})
	if err != nil {
		err = fmt.Errorf("restoring host ports: %w", err)
	}
	return done, err
}

func wanted(pods []Pod) bool {
	return slices.ContainsFunc(pods, func(p Pod) bool { return !p.IsZero() })
}

// sweep removes what leads to pods that are gone, or that have no such port.
func (t *Table) sweep(c *nft.Conn, pods []Pod) (repairs []string, err error) {
	holder := map[netip.Addr]Pod{}
	for _, p := range pods {
		for _, a := range p.Addresses {
			holder[a] = p
		}
	}
	living := map[netip.Addr]bool{}
	keep := func(e nft.Element, has Taken, set nft.Set) (bool, error) {
		address := has.Leads.Addr()
		if p, known := holder[address]; known {
			return slices.ContainsFunc(p.entries(), func(w entry) bool { return w.set.Name == set.Name && w.element.Key == e.Key }), nil
		}
		is, asked := living[address]
		if !asked {
			var err error
			if is, err = t.Living(address); err != nil {
				return true, err
			}
			living[address] = is
		}
		return is, nil
	}
	changes := &nft.Transaction{}
	for _, f := range families {
		for _, set := range []nft.Set{f.any(), f.one()} {
			var stale []nft.Element
			var errs []error
			err := c.Elements(ID, set, func(e nft.Element) {
				has := f.taken(set, e)
				kept, err := keep(e, has, set)
				errs = append(errs, err)
				if err == nil && !kept {
					stale = append(stale, e)
					repairs = append(repairs, fmt.Sprintf("host port %s led to %s, which has no such port any more", has.Mapping, has.Leads))
				}
			})
			if err := errors.Join(append(errs, err)...); err != nil {
				if errors.Is(err, nft.ErrInterrupted) {
					return nil, nil // its notification brings the next look
				}
				return nil, err
			}
			changes.DeleteElements(ID, set, slices.Values(stale))
		}
	}
	if changes.Empty() {
		return nil, nil
	}
	return repairs, t.run(c, "sweep ports", changes)
}
