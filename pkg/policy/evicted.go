package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// evicted are the addresses that the plugin has given to somebody new: the rules take
// them for nobody's until they are readmitted.
func (c *Controller) evicted() (all []netip.Addr, err error) {
	for _, f := range families {
		// Where pods come by the dozen, somebody may always be writing.
		const attempts = 1000
		var found []netip.Addr
		for range attempts {
			found = found[:0]
			err = c.keeper.Elements(tableID, closed.Evicted(f == ipv6), func(e nft.Element) {
				if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
					found = append(found, a)
				}
			})
			if !errors.Is(err, nft.ErrInterrupted) {
				break
			}
		}
		all = append(all, found...)
		if err != nil && !notThere(err) {
			return nil, fmt.Errorf("reading which addresses somebody new has: %w", err)
		}
	}
	return all, nil
}

// readmit has the rules hold for addresses again. Whoever has got one meanwhile is somebody
// new, and has no wire yet: the record comes long before that.
func (c *Controller) readmit(addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	for _, f := range families {
		var all []nft.Element
		for _, a := range addresses {
			if familyOf(a) == f {
				all = append(all, nft.Element{Key: string(nft.Key(nil).Address(a))})
			}
		}
		if len(all) == 0 {
			continue
		}
		if err := c.keeper.Delete(tableID, closed.Evicted(f == ipv6), all); err != nil && !notThere(err) {
			return fmt.Errorf("having the rules hold for %v: %w", addresses, err)
		}
	}
	now, err := c.Gate.Attached()
	if err != nil {
		return err
	}
	ruled := c.world.ruled(now)
	addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool { is, recorded := ruled[a]; return is || !recorded })
	if len(addresses) == 0 {
		return nil
	}
	return c.Gate.Evict(addresses...)
}

// ruled says of the addresses that are recorded now whether the rules are those of who has
// them.
func (w *world) ruled(now []Attached) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, pod := range now {
		for _, a := range pod.Addresses {
			before, twice := all[a]
			all[a] = w.holds(pod, a) && (before || !twice)
		}
	}
	return all
}
