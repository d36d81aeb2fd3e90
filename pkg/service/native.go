package service

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// native writes by netlink what nft cannot.
type native struct{}

func (f family) table() *nftables.Table {
	t := &nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4}
	if f == ipv6 {
		t.Family = nftables.TableFamilyIPv6
	}
	return t
}

// writeRules appends rules to their chains, in one transaction.
func (native) writeRules(rules []nativeRule, stamp uint32) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	for _, r := range rules {
		t := r.family.table()
		conn.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain, Table: t}, Exprs: r.code(r.family)})
	}
	if err := addStamp(conn, rules[0].family, stamp); err != nil {
		return err
	}
	return conn.Flush()
}

// code is the rule
//
//	meta l4proto PROTOCOL update @affinity-PROTOCOL { ip6 saddr . ct mark timeout T : ip6 daddr . PROTOCOL dport }
//
// nft 1.0.6 fails on it ("Assertion `dreg < ctx->reg_low' failed"), because it sets
// 16 bytes of registers aside for a key of 20.
func (r *remembering) code(f family) []expr.Any {
	size := uint32(f.bytes())
	source, target := uint32(12), uint32(16) // in the IPv4 header
	if f == ipv6 {
		source, target = 8, 24
	}
	words := size / 4
	// Registers of four bytes begin at 8. The key is an address and a mark, the
	// data an address and a port.
	key := uint32(unix.NFT_REG32_00)
	mark, data := key+words, key+words+1
	port := data + words
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key},
		&expr.Cmp{Op: expr.CmpOpEq, Register: key, Data: []byte{byte(r.protocol)}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: size, DestRegister: key},
		&expr.Ct{Key: expr.CtKeyMARK, Register: mark},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: target, Len: size, DestRegister: data},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: port},
		&expr.Dynset{
			Operation: unix.NFT_DYNSET_OP_UPDATE, SetName: setAffinityTCP.byProtocol(r.protocol).schema().name,
			SrcRegKey: key, SrcRegData: data, Timeout: r.timeout,
		},
	}
}

// deleteElements deletes elements by key, in one transaction.
func (native) deleteElements(f family, id setID, keys [][]byte, stamp uint32) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	// Said to be a set, so that only the keys are sent.
	set := &nftables.Set{Table: f.table(), Name: id.schema().name}
	// As many as are in one message: its attribute's length is 16 bits.
	const many = 500
	for len(keys) > 0 {
		part := keys[:min(many, len(keys))]
		keys = keys[len(part):]
		elements := make([]nftables.SetElement, len(part))
		for i, key := range part {
			elements[i].Key = key
		}
		if err := conn.SetDeleteElements(set, elements); err != nil {
			return fmt.Errorf("deleting elements: %w", err)
		}
	}
	if err := addStamp(conn, f, stamp); err != nil {
		return err
	}
	return conn.Flush()
}

// addStamp is the stamp of [transaction.stamp].
func addStamp(conn *nftables.Conn, f family, stamp uint32) error {
	set := &nftables.Set{Table: f.table(), Name: setStamps.schema().name}
	key := binary.NativeEndian.AppendUint32(nil, stamp)
	if err := conn.SetAddElements(set, []nftables.SetElement{{Key: key}}); err != nil {
		return fmt.Errorf("adding stamp: %w", err)
	}
	return nil
}
