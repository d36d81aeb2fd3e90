package requirements

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is that of a table that nobody ever sees.
const tableName = "flatnet-probe"

// nftablesProbe is an object of nftables that the kernel takes or refuses.
type nftablesProbe interface {
	probe
	family() byte
	// message is the object in the probe's table.
	message() (kind uint16, body []byte, err error)
}

// batch collects questions about nftables for one transaction.
type batch struct {
	probes    []nftablesProbe
	positions []int // in the list of results
}

func (b *batch) add(position int, p nftablesProbe) {
	b.probes = append(b.probes, p)
	b.positions = append(b.positions, position)
}

// send asks all questions. The messages are a transaction without an end: the
// kernel does what they say one by one, notes which it refuses, and takes
// everything back.
func (b *batch) send(results []error) {
	if len(b.probes) == 0 {
		return
	}
	answers, err := b.ask()
	for i, position := range b.positions {
		if err != nil {
			results[position] = err
			continue
		}
		results[position] = answers[i]
	}
}

func (b *batch) ask() ([]error, error) {
	s, err := open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, refused(err)
	}
	defer s.close()
	begin := make([]byte, sizeofGenericMessage)
	binary.BigEndian.PutUint16(begin[2:], unix.NFNL_SUBSYS_NFTABLES)
	messages := s.message(unix.NFNL_MSG_BATCH_BEGIN, 0, begin)
	first := s.sequence
	tables := map[byte]bool{}
	numbers := make([]uint32, len(b.probes))
	for i, p := range b.probes {
		if f := p.family(); !tables[f] {
			tables[f] = true
			messages = append(messages, s.object(f, unix.NFT_MSG_NEWTABLE, text(unix.NFTA_TABLE_NAME, tableName), number(unix.NFTA_TABLE_FLAGS, tableDormant))...)
			messages = append(messages, s.object(f, unix.NFT_MSG_NEWCHAIN, text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, plainChain))...)
		}
		kind, body, err := p.message()
		if err != nil {
			return nil, err
		}
		messages = append(messages, s.object(p.family(), kind, body)...)
		numbers[i] = s.sequence
	}
	answers, err := s.send(messages)
	if err != nil {
		return nil, err
	}
	if err := answers[first]; err != nil {
		return nil, err // no right to do any of it
	}
	results := make([]error, len(b.probes))
	for i, n := range numbers {
		if answers[n] != nil {
			results[i] = refused(answers[n])
		}
	}
	return results, nil
}

const (
	tableDormant = 1 // NFT_TABLE_F_DORMANT
	plainChain   = "probe"
)

func (s *socket) object(family byte, kind uint16, attributes ...[]byte) []byte {
	body := []byte{family, unix.NFNETLINK_V0, 0, 0}
	for _, a := range attributes {
		body = append(body, a...)
	}
	return s.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE|unix.NLM_F_ACK, body)
}

// single asks for one object alone.
func single(p nftablesProbe) error {
	var b batch
	b.add(0, p)
	results := make([]error, 1)
	b.send(results)
	return results[0]
}

// expression asks for an expression in a rule of a family's table.
type expression struct {
	of   byte
	code expr.Any
	// first is what has to come before it; nil for nothing.
	first expr.Any
}

func (e expression) ask() error   { return single(e) }
func (e expression) family() byte { return e.of }

func (e expression) message() (uint16, []byte, error) {
	var list [][]byte
	for _, x := range []expr.Any{e.first, e.code} {
		if x == nil {
			continue
		}
		raw, err := expr.Marshal(e.of, x)
		if err != nil {
			return 0, nil, fmt.Errorf("encoding an expression of nftables: %w", err)
		}
		list = append(list, nested(unix.NFTA_LIST_ELEM, raw))
	}
	body := append(text(unix.NFTA_RULE_TABLE, tableName), text(unix.NFTA_RULE_CHAIN, plainChain)...)
	body = append(body, nested(unix.NFTA_RULE_EXPRESSIONS, list...)...)
	return unix.NFT_MSG_NEWRULE, body, nil
}

// natChain asks for a base chain of type nat.
type natChain struct{ of byte }

func (c natChain) ask() error   { return single(c) }
func (c natChain) family() byte { return c.of }

func (natChain) message() (uint16, []byte, error) {
	const sourceNAT = 100
	body := append(text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, "nat")...)
	body = append(body, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_POST_ROUTING), number(unix.NFTA_HOOK_PRIORITY, sourceNAT))...)
	return unix.NFT_MSG_NEWCHAIN, append(body, text(unix.NFTA_CHAIN_TYPE, "nat")...), nil
}

// intervalConcatenation asks for a set as that of source ranges is: an address,
// a protocol, a port, and a network.
type intervalConcatenation struct{}

func (p intervalConcatenation) ask() error { return single(p) }
func (intervalConcatenation) family() byte { return unix.NFPROTO_IPV4 }

func (intervalConcatenation) message() (uint16, []byte, error) {
	const (
		flags       = unix.NFT_SET_INTERVAL | 0x80 // NFT_SET_CONCAT
		descConcat  = 2                            // NFTA_SET_DESC_CONCAT
		fieldLength = 1                            // NFTA_SET_FIELD_LEN
		padded      = 16                           // each field takes a register of 4 bytes
	)
	var fields [][]byte
	for _, length := range []uint32{4, 1, 2, 4} {
		fields = append(fields, nested(unix.NFTA_LIST_ELEM, number(fieldLength, length)))
	}
	body := append(text(unix.NFTA_SET_TABLE, tableName), text(unix.NFTA_SET_NAME, "probe")...)
	for _, a := range [][]byte{
		number(unix.NFTA_SET_FLAGS, flags), number(unix.NFTA_SET_KEY_LEN, padded), number(unix.NFTA_SET_ID, 1),
		nested(unix.NFTA_SET_DESC, nested(descConcat, fields...)),
	} {
		body = append(body, a...)
	}
	return unix.NFT_MSG_NEWSET, body, nil
}
