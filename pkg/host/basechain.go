package host

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

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
	// refuses is what its last rule does with all that came so far, which is as good
	// as a policy: "drop" or "reject"; "" where it does neither.
	refuses string
	// passes are the prefixes that rules of its table name as a source or
	// destination and accept, or hand on to another chain. They are not looked
	// up for iptables' chains.
	passes []netip.Prefix
}

func (c baseChain) String() string {
	return fmt.Sprintf("%s %s %s", familyName(c.family), c.table, c.name)
}

// isIPTables reports whether iptables' nft variant made the chain.
func (c baseChain) isIPTables() bool {
	return c.family != nftables.TableFamilyINet && c.table == "filter" && c.name == "FORWARD"
}

// serves reports whether a variant's program keeps the chain.
func (c baseChain) serves(v variant) bool {
	return v.nft && c.isIPTables() && v.ipv6 == (c.family == nftables.TableFamilyIPv6)
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

// forwardFamilies are those whose forward hook sees routed packets; that of
// bridges has the same number and sees others.
var forwardFamilies = [...]nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet}

// iptablesChains asks for the FORWARD chains of iptables' nft variant. They are
// asked for by name: a dump can miss some while somebody changes the rules, and
// grows with all chains that there are.
// Equivalent to: `nft list chain ip filter FORWARD`, and the same for ip6.
func iptablesChains(c *nftables.Conn) ([]baseChain, error) {
	var found []baseChain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		b := baseChain{family: family, table: "filter", name: "FORWARD"}
		chain, err := c.ListChain(&nftables.Table{Family: family, Name: b.table}, b.name)
		switch {
		case isMissing(err):
		case err != nil:
			return nil, fmt.Errorf("looking up nftables chain %s: %w", b, err)
		default:
			if b.drops = policyDrops(chain); !b.drops {
				b.refuses = refusal(c, chain)
			}
			found = append(found, b)
		}
	}
	return found, nil
}

// foreignDrops asks for all other chains of hook forward that drop by policy, or
// end in a rule that drops or rejects everything, as firewalld's does. Flatnet's
// own tables are none of them, nor is the one that firewalld has while it reloads.
// Equivalent to: `nft list chains`, and `nft list chain`
// for each of hook forward.
func foreignDrops(c *nftables.Conn) ([]baseChain, error) {
	all, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	var found []baseChain
	for _, chain := range all {
		b := baseChain{family: chain.Table.Family, table: chain.Table.Name, name: chain.Name, drops: policyDrops(chain)}
		if chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward ||
			!slices.Contains(forwardFamilies[:], b.family) || b.isIPTables() || b.table == "flatnet" || b.table == "firewalld_policy_drop" {
			continue
		}
		if !b.drops {
			if b.refuses = refusal(c, chain); b.refuses == "" {
				continue
			}
		}
		b.passes = passesOf(c, all, chain.Table)
		found = append(found, b)
	}
	return found, nil
}

// refusal is what the last rule of a chain does with every packet, if that is to
// drop or to reject it. A chain that cannot be read does neither.
func refusal(c *nftables.Conn, chain *nftables.Chain) string {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil || len(rules) == 0 {
		return ""
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return "reject"
		case *expr.Target: // as iptables writes it
			if e.Name == "REJECT" {
				return "reject"
			}
			return ""
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return "drop"
			}
			return ""
		default:
			return "" // it asks for something first
		}
	}
	return ""
}

func policyDrops(c *nftables.Chain) bool {
	return c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

// isMissing reports whether the kernel said that there is no such table or
// chain. The library passes the error on as text only.
func isMissing(err error) bool {
	return err != nil && (errors.Is(err, unix.ENOENT) || strings.HasSuffix(err.Error(), unix.ENOENT.Error()))
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
