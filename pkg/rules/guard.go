package rules

import (
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	verifiedName = "verified"
	// verifiedFor is how long a source that was checked is not checked again. An
	// interface's number is not given to another one for much longer, so an
	// entry ends with its pod.
	verifiedFor = time.Minute
	// verifiedSize bounds the set; what does not fit is checked each time.
	verifiedSize = 65535

	numberOfGuardRules = 6
)

// verifiedSet holds interfaces with the source addresses that were found to be
// theirs. To look a pair up takes a third of the time that the routing table takes.
func verifiedSet() (*nftables.Set, error) {
	key, err := nftables.ConcatSetType(nftables.TypeIFIndex, nftables.TypeIP6Addr)
	if err != nil {
		return nil, fmt.Errorf("describing nftables set %s: %w", verifiedName, err)
	}
	return &nftables.Set{
		Table: table(nftables.TableFamilyIPv6), Name: verifiedName, KeyType: key, Concatenation: true,
		Dynamic: true, HasTimeout: true, Size: verifiedSize, KeyByteOrder: binaryutil.NativeEndian,
	}, nil
}

// hasGuard reports whether the guard's chain is there.
func (r *Rules) hasGuard(c *nftables.Conn) (bool, error) {
	_, err := c.ListChain(table(nftables.TableFamilyIPv6), guardChain)
	return err == nil, ignoreMissing(err)
}

func (r *Rules) buildGuard(c *nftables.Conn) error {
	t := table(nftables.TableFamilyIPv6)
	if err := r.step("add guard"); err != nil {
		return err
	}
	verified, err := verifiedSet()
	if err != nil {
		return err
	}
	c.AddTable(t)
	if err := c.AddSet(verified, nil); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: guardChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.FlushChain(chain)
	for _, rule := range guardRules(verified) {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule})
	}
	return c.Flush()
}

// Registers of 32 bits, of which a pair takes five in a row.
const (
	interfaceRegister = unix.NFT_REG32_00
	sourceRegister    = unix.NFT_REG32_01
)

// guardRules are those that the package's documentation shows.
func guardRules(verified *nftables.Set) [numberOfGuardRules][]expr.Any {
	source := func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}
	}
	pair := func(last expr.Any) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: interfaceRegister}, source(sourceRegister), last}
	}
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	return [numberOfGuardRules][]expr.Any{
		{
			&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: group},
			accept,
		},
		append(pair(&expr.Lookup{SourceRegister: interfaceRegister, SetName: verified.Name, SetID: verified.ID}), accept),
		{
			source(1),
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 16,
				Mask: append([]byte{0xff, 0xc0}, make([]byte, 14)...), Xor: make([]byte, 16),
			},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte{0xfe, 0x80}, make([]byte, 14)...)},
			accept,
		},
		{
			source(1),
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 16)},
			accept,
		},
		{
			&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
			drop,
		},
		pair(&expr.Dynset{
			SrcRegKey: interfaceRegister, SetName: verified.Name, SetID: verified.ID,
			Operation: unix.NFT_DYNSET_OP_ADD, Timeout: verifiedFor,
		}),
	}
}
