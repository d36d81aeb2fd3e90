package policy

import (
	"fmt"
	"net/netip"
	"slices"

	networking "k8s.io/api/networking/v1"
)

// manyBlocks is how many networks a policy has here, fivesome how many of these belong
// together.
const manyBlocks, fivesome = 10_000, 5

// networkAt is a network of a family in the slot of a number, which has 256 addresses.
func networkAt(f, slot, first, bits int) string {
	if families[f] == ipv4 {
		return fmt.Sprintf("20.%d.%d.%d/%d", slot>>8, slot&0xff, first, bits)
	}
	return fmt.Sprintf("2001:db8::%x:%x/%d", slot>>8, slot&0xff<<8|first, bits+96)
}

// blocksAt are the networks, by turns of both families. Of five the first one has two
// exceptions, the next two are the halves of a slot, and the fourth has an exception of
// which the fifth allows a part. The slots of fivesomes begin at a distance: at one of 3
// they are side by side.
func blocksAt(distance int) (all []networking.IPBlock) {
	for n := range manyBlocks / len(families) / fivesome {
		for f := range families {
			slot := n * distance
			all = append(all,
				networking.IPBlock{CIDR: networkAt(f, slot, 0, 24), Except: []string{networkAt(f, slot, 64, 26), networkAt(f, slot, 200, 32)}},
				networking.IPBlock{CIDR: networkAt(f, slot+1, 128, 25)},
				networking.IPBlock{CIDR: networkAt(f, slot+1, 0, 25)},
				networking.IPBlock{CIDR: networkAt(f, slot+2, 0, 24), Except: []string{networkAt(f, slot+2, 0, 25)}},
				networking.IPBlock{CIDR: networkAt(f, slot+2, 32, 27)},
			)
		}
	}
	return all
}

// newSlot is one that no network is in before the change; changedSlot is that of which one
// is changed.
const newSlot = 20_000

func changedSlot(distance int) int { return manyBlocks / len(families) / fivesome / 2 * distance }

// sample are addresses of both families around all ends of a few fivesomes' networks, and
// in none of them.
func sample(distance int) (all []netip.Addr) {
	last := (manyBlocks/len(families)/fivesome - 1) * distance
	for _, first := range []int{0, distance, changedSlot(distance), last, newSlot} {
		for slot := first; slot < first+4; slot++ {
			for _, host := range []int{0, 31, 32, 63, 64, 127, 128, 199, 200, 201, 255} {
				for f := range families {
					all = append(all, netip.MustParsePrefix(networkAt(f, slot, host, 32)).Addr())
				}
			}
		}
	}
	return all
}

func peersOf(blocks []networking.IPBlock) (all []networking.NetworkPolicyPeer) {
	for i := range blocks {
		all = append(all, networking.NetworkPolicyPeer{IPBlock: &blocks[i]})
	}
	return all
}

// allowing says by the objects alone whether one of the networks has an address.
func allowing(blocks []networking.IPBlock) func(netip.Addr) bool {
	type network struct {
		netip.Prefix
		except []netip.Prefix
	}
	var all []network
	for _, b := range blocks {
		n := network{Prefix: netip.MustParsePrefix(b.CIDR)}
		for _, e := range b.Except {
			n.except = append(n.except, netip.MustParsePrefix(e))
		}
		all = append(all, n)
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(all, func(n network) bool {
			return n.Contains(a) && !slices.ContainsFunc(n.except, func(e netip.Prefix) bool { return e.Contains(a) })
		})
	}
}
