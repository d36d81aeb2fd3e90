package rules

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

func masqueradeSet(f nftables.TableFamily) *nftables.Set {
	return &nftables.Set{Table: table(f), Name: masqueradeName, KeyType: keyType(f)}
}

func exemptSet(f nftables.TableFamily) *nftables.Set {
	return &nftables.Set{Table: table(f), Name: exemptName, KeyType: keyType(f), Interval: true}
}

func keyType(f nftables.TableFamily) nftables.SetDatatype {
	if f == nftables.TableFamilyIPv6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// joinMasquerade adds the need's exempt networks and addresses. It reports false
// where that shows that table, sets or rule are missing.
func (r *Rules) joinMasquerade(c *nftables.Conn, f nftables.TableFamily, need Need) (joined bool, err error) {
	if _, err := r.widenExemptions(c, f, need.exemptions(f)); err != nil {
		return false, ignoreMissing(err)
	}
	if err := r.step("add element"); err != nil {
		return false, err
	}
	if err := c.SetAddElements(masqueradeSet(f), elements(need.ofFamily(f))); err != nil {
		return false, err
	}
	err = c.Flush()
	return err == nil, ignoreMissing(err)
}

// exemptions are the need's networks of one family, and multicast, which has no
// business with translation.
func (n Need) exemptions(f nftables.TableFamily) []netip.Prefix {
	prefixes := []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4")}
	if f == nftables.TableFamilyIPv6 {
		prefixes[0] = netip.MustParsePrefix("ff00::/8")
	}
	for _, p := range n.Exempt {
		if p.Addr().Is6() == (f == nftables.TableFamilyIPv6) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// buildMasquerade makes everything in one transaction. The chain is emptied
// first, so that what is left of somebody's partial deletion is mended too.
func (r *Rules) buildMasquerade(c *nftables.Conn, f nftables.TableFamily, need Need) error {
	if err := r.step("add masquerade"); err != nil {
		return err
	}
	t := c.AddTable(table(f))
	pods, exempt := masqueradeSet(f), exemptSet(f)
	if err := c.AddSet(pods, elements(need.ofFamily(f))); err != nil {
		return err
	}
	if err := c.AddSet(exempt, nil); err != nil {
		return err
	}
	c.FlushSet(exempt)
	if err := c.SetAddElements(exempt, ranges(nil).with(need.exemptions(f)).elements()); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: natChain, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.FlushChain(chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: masqueradeRule(f, pods, exempt)})
	return c.Flush()
}

// masqueradeRule is the one rule:
// saddr @masqueraded daddr != @exempt oifgroup != 70 masquerade fully-random.
func masqueradeRule(f nftables.TableFamily, pods, exempt *nftables.Set) []expr.Any {
	source, destination, length := uint32(12), uint32(16), uint32(4)
	if f == nftables.TableFamilyIPv6 {
		source, destination, length = 8, 24, 16
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: pods.Name, SetID: pods.ID},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: destination, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: exempt.Name, SetID: exempt.ID, Invert: true},
		&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: group},
		// Fully random: two pods that use one source port to one server at
		// the same time must not get the same translated one, or the
		// kernel drops the second packet.
		&expr.Masq{FullyRandom: true},
	}
}

func (r *Rules) removeMasquerade(c *nftables.Conn, f nftables.TableFamily, need Need) error {
	// One transaction an address: an address that is missing must not keep
	// the others from being removed.
	for _, a := range need.ofFamily(f) {
		if err := r.step("delete element"); err != nil {
			return err
		}
		if err := c.SetDeleteElements(masqueradeSet(f), elements([]netip.Addr{a})); err != nil {
			return err
		}
		if err := ignoreMissing(c.Flush()); err != nil {
			return err
		}
	}
	return nil
}

func elements(addresses []netip.Addr) []nftables.SetElement {
	var all []nftables.SetElement
	for _, a := range addresses {
		all = append(all, nftables.SetElement{Key: a.AsSlice()})
	}
	return all
}

func checkRules(c *nftables.Conn, f nftables.TableFamily, chain string, want int) error {
	found, err := c.GetRules(table(f), &nftables.Chain{Table: table(f), Name: chain})
	if err != nil && !isMissing(err) {
		return fmt.Errorf("reading nftables chain %s %s %s: %w", familyName(f), tableName, chain, err)
	}
	if len(found) != want {
		return fmt.Errorf("nftables chain %s %s %s has %d rules instead of %d", familyName(f), tableName, chain, len(found), want)
	}
	return nil
}

func checkElements(c *nftables.Conn, f nftables.TableFamily, need Need) error {
	present, err := c.GetSetElements(masqueradeSet(f))
	if err != nil && !isMissing(err) {
		return fmt.Errorf("reading nftables set %s %s %s: %w", familyName(f), tableName, masqueradeName, err)
	}
	have := map[string]bool{}
	for _, e := range present {
		have[string(e.Key)] = true
	}
	for _, a := range need.ofFamily(f) {
		if !have[string(a.AsSlice())] {
			return fmt.Errorf("nftables set %s %s %s lacks %s: the pod is not masqueraded", familyName(f), tableName, masqueradeName, a)
		}
	}
	return nil
}

func nativeUint32(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }
