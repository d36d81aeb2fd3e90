package host

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// baseChain is a chain of nftables that sees forwarded packets.
type baseChain struct {
	family nftables.TableFamily // ip, ip6 or inet
	table  string
	name   string
	drops  bool // its policy is drop
	// passes are the prefixes that rules of its table name as a source or
	// destination and accept, or hand on to another chain. They are looked up
	// only for chains that drop and are not iptables'.
	passes []netip.Prefix
}

func (c baseChain) String() string {
	return fmt.Sprintf("%s %s %s", familyName(c.family), c.table, c.name)
}

// isIPTables reports whether iptables' nft variant made the chain.
func (c baseChain) isIPTables() bool {
	return c.family != nftables.TableFamilyINet && c.table == "filter" && c.name == "FORWARD"
}

// sees reports whether packets of a prefix's family come through the chain.
func (c baseChain) sees(prefix netip.Prefix) bool {
	switch c.family {
	case nftables.TableFamilyIPv4:
		return prefix.Addr().Is4()
	case nftables.TableFamilyIPv6:
		return prefix.Addr().Is6()
	}
	return true
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// forwardChains asks the kernel for its chains of hook forward, other than
// flatnet's own. Equivalent to: `nft list chains`.
func forwardChains() ([]baseChain, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	defer c.CloseLasting()
	all, err := listChains(c)
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	var found []baseChain
	for _, chain := range all {
		// Chains of bridges have a forward hook as well, which sees no routed packet.
		routed := slices.Contains([]nftables.TableFamily{
			nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet,
		}, chain.Table.Family)
		if !routed || chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward || chain.Table.Name == "flatnet" {
			continue
		}
		b := baseChain{
			family: chain.Table.Family, table: chain.Table.Name, name: chain.Name,
			drops: chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop,
		}
		if b.drops && !b.isIPTables() {
			b.passes = passesOf(c, all, chain.Table)
		}
		found = append(found, b)
	}
	return found, nil
}

// listChains takes a dump again that somebody's change interrupted.
func listChains(c *nftables.Conn) (all []*nftables.Chain, err error) {
	for range 10 {
		if all, err = c.ListChains(); !errors.Is(err, unix.EINTR) {
			return all, err
		}
	}
	return nil, err
}

// passesOf reads the prefixes out of all rules of a table. What cannot be read
// passes nothing.
func passesOf(c *nftables.Conn, chains []*nftables.Chain, table *nftables.Table) []netip.Prefix {
	var all []netip.Prefix
	for _, chain := range chains {
		if chain.Table.Name != table.Name || chain.Table.Family != table.Family {
			continue
		}
		rules, err := c.GetRules(table, chain)
		if err != nil {
			continue
		}
		for _, rule := range rules {
			all = append(all, passed(rule.Exprs)...)
		}
	}
	return all
}

// passed returns the prefixes that a rule compares a packet's source or
// destination with, where the rule does not end in a drop.
func passed(rule []expr.Any) []netip.Prefix {
	var found []netip.Prefix
	var loaded *expr.Payload
	var mask []byte
	for _, e := range rule {
		switch e := e.(type) {
		case *expr.Payload:
			loaded, mask = e, nil
		case *expr.Bitwise:
			mask = e.Mask
		case *expr.Cmp:
			if prefix, ok := comparedPrefix(loaded, mask, e); ok {
				found = append(found, prefix)
			}
			loaded, mask = nil, nil
		case *expr.Verdict:
			if slices.Contains([]expr.VerdictKind{expr.VerdictAccept, expr.VerdictJump, expr.VerdictGoto}, e.Kind) {
				return found
			}
		}
	}
	return nil
}

// comparedPrefix reads `ip saddr PREFIX` and its like: some bytes of a header,
// maybe masked, compared for equality. A prefix of whole bytes is compared by
// these alone.
func comparedPrefix(loaded *expr.Payload, mask []byte, compared *expr.Cmp) (netip.Prefix, bool) {
	if loaded == nil || loaded.Base != expr.PayloadBaseNetworkHeader || compared.Op != expr.CmpOpEq {
		return netip.Prefix{}, false
	}
	size := 0
	switch {
	case (loaded.Offset == 12 || loaded.Offset == 16) && len(compared.Data) <= 4:
		size = 4 // saddr, daddr of IPv4
	case loaded.Offset == 8 || loaded.Offset == 24:
		size = 16 // of IPv6
	}
	if size < len(compared.Data) {
		return netip.Prefix{}, false
	}
	raw := make([]byte, size)
	copy(raw, compared.Data)
	address, _ := netip.AddrFromSlice(raw)
	length := 8 * len(compared.Data)
	if mask != nil {
		length = 0
		for _, b := range mask {
			length += bits.OnesCount8(b)
		}
	}
	prefix := netip.PrefixFrom(address, length)
	return prefix, prefix.IsValid()
}
