package rules

import (
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

const (
	masqueradeName = "masqueraded" // without the d it is a word of nft's, and could not be loaded again
	exemptName     = "exempt"
	natName        = "postrouting"
	guardName      = "guard"

	// verifiedSize bounds the set; what does not fit is checked each time.
	verifiedSize = 65535
)

// id is a family's table.
func id(f nft.Family) nft.ID { return nft.ID{Family: f, Name: "flatnet"} }

// addressType is the type of a family's addresses.
func addressType(f nft.Family) string {
	if f == nft.IPv6 {
		return "type ipv6_addr"
	}
	return "type ipv4_addr"
}

func masqueradeSet(f nft.Family) nft.Set { return nft.Set{Name: masqueradeName, Type: addressType(f)} }

func exemptSet(f nft.Family) nft.Set {
	return nft.Set{Name: exemptName, Type: addressType(f), Flags: "interval"}
}

// verifiedSet holds interfaces with the source addresses that were found to be
// theirs. To look a pair up takes a third of the time that the routing table takes.
func verifiedSet() nft.Set {
	return nft.Set{Name: "verified", Type: "typeof iif . ip6 saddr", Flags: "dynamic,timeout", Size: verifiedSize}
}

// masqueradeChain has the one rule. Fully random: two pods that use one source port to
// one server at the same time must not get the same translated one, or the kernel drops
// the second packet.
func masqueradeChain(f nft.Family) nft.Chain {
	return nft.Chain{Name: natName, Base: "type nat hook postrouting priority srcnat; policy accept;", Rules: []string{
		fmt.Sprintf("%[1]s saddr @%[2]s %[1]s daddr != @%[3]s oifgroup != %[4]d masquerade fully-random", f, masqueradeName, exemptName, kernel.Group),
	}}
}

// guardChain is the guard. How long a source that was checked is not checked again: an
// interface's number is not given to another one for much longer than a minute, so an
// entry ends with its pod.
func guardChain() nft.Chain {
	return nft.Chain{Name: guardName, Base: "type filter hook prerouting priority raw; policy accept;", Rules: []string{
		fmt.Sprintf("iifgroup != %d accept", kernel.Group),
		"iif . ip6 saddr @verified accept",
		"ip6 saddr fe80::/10 accept",
		"ip6 saddr :: accept",
		"fib saddr . iif oif 0 drop",
		"add @verified { iif . ip6 saddr timeout 1m }",
	}}
}

// buildGuard makes the guard, whatever is left of it.
func buildGuard() *nft.Transaction {
	t := &nft.Transaction{}
	t.AddTable(id(nft.IPv6), "")
	t.AddSet(id(nft.IPv6), verifiedSet())
	t.RefillChain(id(nft.IPv6), guardChain())
	return t
}

// buildMasquerade makes everything in one transaction.
func buildMasquerade(f nft.Family, need Need) *nft.Transaction {
	t := &nft.Transaction{}
	t.AddTable(id(f), "")
	t.AddSet(id(f), masqueradeSet(f))
	t.AddElements(id(f), masqueradeSet(f), addressesIn(need.ofFamily(f)).All)
	t.AddSet(id(f), exemptSet(f))
	t.FlushSet(id(f), exemptName)
	t.AddElements(id(f), exemptSet(f), nft.Ranges(nil).With(need.exemptions(f)...).All)
	t.RefillChain(id(f), masqueradeChain(f))
	return t
}

// addressesIn are addresses as elements.
func addressesIn(addresses []netip.Addr) (all nft.Ranges) {
	for _, a := range addresses {
		all = append(all, nft.Range{First: a, Last: a})
	}
	return all
}

// exemptions are the need's networks of one family, and multicast, which has no
// business with translation.
func (n Need) exemptions(f nft.Family) []netip.Prefix {
	prefixes := []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4")}
	if f == nft.IPv6 {
		prefixes[0] = netip.MustParsePrefix("ff00::/8")
	}
	for _, p := range n.Exempt {
		if p.Addr().Is6() == (f == nft.IPv6) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}
