package rules

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// ensureGuard makes the guard where its chain is missing.
func (r *Rules) ensureGuard(c *nftables.Conn) error {
	_, err := c.ListChain(table(nftables.TableFamilyIPv6), guardChain)
	if err == nil || !isMissing(err) {
		return err
	}
	return r.buildGuard(c)
}

func (r *Rules) buildGuard(c *nftables.Conn) error {
	t := table(nftables.TableFamilyIPv6)
	if err := r.step("add guard"); err != nil {
		return err
	}
	c.AddTable(t)
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: guardChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.FlushChain(chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: guardRule()})
	return c.Flush()
}

// guardRule is the one rule:
// iifgroup 70 ip6 saddr != fe80::/10 ip6 saddr != :: fib saddr . iif oif 0 drop.
func guardRule() []expr.Any {
	source := func() expr.Any {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: group},
		source(),
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 16,
			Mask: append([]byte{0xff, 0xc0}, make([]byte, 14)...), Xor: make([]byte, 16),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: append([]byte{0xfe, 0x80}, make([]byte, 14)...)},
		source(),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 16)},
		&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
