package policy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// readings are how often a set is read that others write to meanwhile.
const readings = 1000

// evicted are the addresses that the plugin has given to somebody new: the rules take
// them for nobody's until they are readmitted.
func (c *Controller) evicted() (all []netip.Addr, err error) {
	for _, f := range families {
		var found []netip.Addr
		err := nft.Steadily(readings, func() error {
			found = nil
			return c.keeper.Elements(tableID, closed.Evicted(f == ipv6), func(e nft.Element) {
				if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
					found = append(found, a)
				}
			})
		})
		all = append(all, found...)
		if err != nil && !notThere(err) {
			return nil, fmt.Errorf("reading which addresses somebody new has: %w", err)
		}
	}
	return all, nil
}

// recall undoes what was done for who had the addresses by the records that were read
// before, where somebody new has got one meanwhile: that one's record comes before it has
// a wire, and so in time.
func (c *Controller) recall(readmitted, opened []netip.Addr) error {
	if len(readmitted)+len(opened) == 0 {
		return nil
	}
	now, err := c.Gate.Attached()
	if err != nil {
		return err
	}
	ruled := c.world.ruled(now)
	another := func(all []netip.Addr) (others []netip.Addr) {
		for _, a := range all {
			if is, recorded := ruled[a]; recorded && !is {
				others = append(others, a)
			}
		}
		return others
	}
	return errors.Join(c.Gate.Evict(another(readmitted)...), c.Gate.Shut(another(opened)...))
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
