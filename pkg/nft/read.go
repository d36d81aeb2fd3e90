package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// found is a table as the kernel has it, without elements.
type found struct {
	flags   uint32
	comment string
	sets    map[string]foundSet
	chains  map[string]foundChain
}

// foundSet is a set's declaration.
type foundSet struct {
	flags, size                                uint32
	keyType, keyLength, valueType, valueLength uint32
	timeout                                    bool // elements have one without being given it
}

// foundChain is a chain with the expressions of its rules, as the kernel encodes them.
type foundChain struct {
	base  *base
	rules [][]byte
}

// Tables lists the tables that there are.
// Equivalent to: `nft list tables`.
func (c *Conn) Tables() ([]ID, error) {
	var all []ID
	for _, f := range []Family{IPv4, IPv6, INet} {
		err := c.dump(byte(f), unix.NFT_MSG_GETTABLE, func(a attributes) {
			all = append(all, ID{f, a.text(unix.NFTA_TABLE_NAME)})
		})
		if err != nil {
			return nil, fmt.Errorf("listing nftables tables: %w", err)
		}
	}
	return all, nil
}

// Generation returns the number of the present ruleset: every transaction in the
// namespace increases it.
func (c *Conn) Generation() (n uint32, err error) {
	a, err := c.get(unix.AF_UNSPEC, unix.NFT_MSG_GETGEN)
	if err != nil {
		return 0, fmt.Errorf("reading the generation of nftables: %w", err)
	}
	return a.number(unix.NFTA_GEN_ID), nil
}

// HasChain reports whether a chain is there, whatever it holds.
func (c *Conn) HasChain(id ID, name string) (bool, error) {
	_, err := c.get(byte(id.Family), unix.NFT_MSG_GETCHAIN, text(unix.NFTA_CHAIN_TABLE, id.Name), text(unix.NFTA_CHAIN_NAME, name))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// read returns a table; nil where there is none.
func (c *Conn) read(id ID) (*found, error) {
	var t *found
	err := c.dump(byte(id.Family), unix.NFT_MSG_GETTABLE, func(a attributes) {
		if a.text(unix.NFTA_TABLE_NAME) == id.Name {
			t = &found{
				flags: a.number(unix.NFTA_TABLE_FLAGS), comment: commentIn(a[tableUserdata]),
				sets: map[string]foundSet{}, chains: map[string]foundChain{},
			}
		}
	})
	if err != nil || t == nil {
		return t, err
	}
	in := func(kind uint16) attribute { return text(kind, id.Name) }
	return t, errors.Join(
		c.dump(byte(id.Family), unix.NFT_MSG_GETSET, func(a attributes) {
			flags := a.number(unix.NFTA_SET_FLAGS)
			// An anonymous set belongs to a rule, and comes and goes with it.
			if a.text(unix.NFTA_SET_TABLE) != id.Name || flags&unix.NFT_SET_ANONYMOUS != 0 {
				return
			}
			description := a.nested(unix.NFTA_SET_DESC)
			t.sets[a.text(unix.NFTA_SET_NAME)] = foundSet{
				flags: flags, keyType: a.number(unix.NFTA_SET_KEY_TYPE), keyLength: a.number(unix.NFTA_SET_KEY_LEN),
				valueType: a.number(unix.NFTA_SET_DATA_TYPE), valueLength: a.number(unix.NFTA_SET_DATA_LEN),
				size: description.number(unix.NFTA_SET_DESC_SIZE), timeout: a.has(setTimeout),
			}
		}, in(unix.NFTA_SET_TABLE)),
		c.dump(byte(id.Family), unix.NFT_MSG_GETCHAIN, func(a attributes) {
			if a.text(unix.NFTA_CHAIN_TABLE) != id.Name {
				return
			}
			var ch foundChain
			if a.has(unix.NFTA_CHAIN_HOOK) {
				hook := a.nested(unix.NFTA_CHAIN_HOOK)
				ch.base = &base{
					kind: a.text(unix.NFTA_CHAIN_TYPE), hook: hook.number(unix.NFTA_HOOK_HOOKNUM),
					priority: int32(hook.number(unix.NFTA_HOOK_PRIORITY)), drops: a.number(unix.NFTA_CHAIN_POLICY) == policyDrop,
				}
			}
			t.chains[a.text(unix.NFTA_CHAIN_NAME)] = ch
		}),
		c.dump(byte(id.Family), unix.NFT_MSG_GETRULE, func(a attributes) {
			name := a.text(unix.NFTA_RULE_CHAIN)
			if ch, known := t.chains[name]; known && a.text(unix.NFTA_RULE_TABLE) == id.Name {
				ch.rules = append(ch.rules, slices.Clone(a[unix.NFTA_RULE_EXPRESSIONS]))
				t.chains[name] = ch
			}
		}, in(unix.NFTA_RULE_TABLE)),
	)
}

// chainReadings is how often a chain is read while others write: where dozens of
// attachments come and go, one of a few readings is interrupted.
const chainReadings = 100

// Chain reports whether a chain is there, and holds just these rules. It fails with
// [ErrInterrupted] only where somebody writes without a pause.
// Equivalent to: `nft list chain FAMILY TABLE NAME`.
func (c *Conn) Chain(id ID, want Chain) (there, right bool, err error) {
	err = Steadily(chainReadings, func() error {
		there, right, err = c.readChain(id, want)
		return err
	})
	return there, right, err
}

func (c *Conn) readChain(id ID, want Chain) (there, right bool, err error) {
	if there, err = c.HasChain(id, want.Name); err != nil || !there {
		return false, false, err
	}
	var ch foundChain
	err = c.dump(byte(id.Family), unix.NFT_MSG_GETRULE, func(a attributes) {
		if a.text(unix.NFTA_RULE_TABLE) == id.Name && a.text(unix.NFTA_RULE_CHAIN) == want.Name {
			ch.rules = append(ch.rules, slices.Clone(a[unix.NFTA_RULE_EXPRESSIONS]))
		}
	}, text(unix.NFTA_RULE_TABLE, id.Name), text(unix.NFTA_RULE_CHAIN, want.Name))
	return true, ch.holds(id.Family, want.Rules), err
}

// Counted returns how many packets each rule of a chain has counted, of those that
// count, in their order. It fails with [unix.ENOENT] where there is no such chain.
func (c *Conn) Counted(id ID, chain string) (packets []uint64, err error) {
	err = c.dump(byte(id.Family), unix.NFT_MSG_GETRULE, func(a attributes) {
		if a.text(unix.NFTA_RULE_TABLE) != id.Name || a.text(unix.NFTA_RULE_CHAIN) != chain {
			return
		}
		for _, raw := range netlink.Attributes(a[unix.NFTA_RULE_EXPRESSIONS]) {
			if n, counts := packetsOf(parse(raw)); counts {
				packets = append(packets, n)
			}
		}
	}, text(unix.NFTA_RULE_TABLE, id.Name), text(unix.NFTA_RULE_CHAIN, chain))
	return packets, err
}

// packetsOf reads how many packets an expression has counted; counts is false where it
// is no counter.
func packetsOf(expression attributes) (n uint64, counts bool) {
	if expression.text(1) != "counter" {
		return 0, false
	}
	const packets = 2 // NFTA_COUNTER_PACKETS
	counted := expression.nested(2)
	if raw := counted[packets]; len(raw) == 8 {
		n = binary.BigEndian.Uint64(raw)
	}
	return n, true
}

// holds reports whether the chain has just these rules.
func (ch foundChain) holds(f Family, rules []string) bool {
	return slices.EqualFunc(rules, ch.rules, func(rule string, raw []byte) bool {
		code, err := compile(byte(f), rule)
		return err == nil && same(code, raw)
	})
}

// Elements calls yield for every element of a set. It fails with [unix.ENOENT] where
// there is no such set, and with [ErrInterrupted] where somebody wrote meanwhile.
// Equivalent to: `nft list set FAMILY TABLE NAME`.
func (c *Conn) Elements(id ID, s Set, yield func(Element)) error {
	made, err := s.shape()
	if err != nil {
		return err
	}
	edges := edges{size: made.key.size()}
	err = c.dump(byte(id.Family), unix.NFT_MSG_GETSETELEM, func(a attributes) {
		for _, raw := range netlink.Attributes(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) {
			e, end := made.element(raw)
			if made.edges() {
				edges.add(e, end)
			} else {
				yield(e)
			}
		}
	}, text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name), text(unix.NFTA_SET_ELEM_LIST_SET, s.Name))
	edges.each(yield)
	return err
}

// Element returns the element with a key; found is false where there is none, or no such
// set. The set's elements are no intervals.
// Equivalent to: `nft get element FAMILY TABLE NAME { … }`.
func (c *Conn) Element(id ID, s Set, key string) (e Element, found bool, err error) {
	made, err := s.shape()
	if err != nil {
		return e, false, err
	}
	list := beginAttribute(nil, 1) // NFTA_LIST_ELEM
	list = appendData(list, unix.NFTA_SET_ELEM_KEY, key)
	endAttribute(list, 0)
	a, err := c.get(byte(id.Family), unix.NFT_MSG_GETSETELEM,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name), text(unix.NFTA_SET_ELEM_LIST_SET, s.Name),
		attribute{kind: unix.NFTA_SET_ELEM_LIST_ELEMENTS | flagNested, value: list})
	if errors.Is(err, unix.ENOENT) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("reading element { %s } of nftables set %s %s: %w", made.key.text(key, ""), id, s.Name, err)
	}
	for _, raw := range netlink.Attributes(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) {
		e, _ = made.element(raw)
		return e, true, nil
	}
	return e, false, nil
}

// element decodes one; end says that it is where an interval no longer holds.
func (s *shape) element(raw []byte) (e Element, end bool) {
	a := parse(raw)
	data := func(kind uint16) attributes { return a.nested(kind) }
	key, last := data(unix.NFTA_SET_ELEM_KEY), data(elementKeyEnd)
	e.Key, e.End = string(key[unix.NFTA_DATA_VALUE]), string(last[unix.NFTA_DATA_VALUE])
	e.Comment = commentIn(a[elementUserdata])
	if a.has(unix.NFTA_SET_ELEM_DATA) {
		value := data(unix.NFTA_SET_ELEM_DATA)
		if value.has(unix.NFTA_DATA_VERDICT) {
			v := value.nested(unix.NFTA_DATA_VERDICT)
			e.Value = verdictText(int32(v.number(unix.NFTA_VERDICT_CODE)), v.text(unix.NFTA_VERDICT_CHAIN))
		} else {
			e.Value = string(value[unix.NFTA_DATA_VALUE])
		}
	}
	e.Packets, _ = packetsOf(data(unix.NFTA_SET_ELEM_EXPR))
	return e, a.number(unix.NFTA_SET_ELEM_FLAGS)&elementEnd != 0
}

// edges puts together where intervals begin and where they end, which the kernel lists
// in no given order. One without an end goes on to the last key; an end without a
// beginning, which nft puts in front of the first, means nothing.
type edges struct {
	size int
	all  []edge
}

type edge struct {
	Element
	end bool
}

func (e *edges) add(one Element, end bool) { e.all = append(e.all, edge{one, end}) }

func (e *edges) each(yield func(Element)) {
	slices.SortFunc(e.all, func(a, b edge) int {
		if a.Key != b.Key {
			if a.Key < b.Key {
				return -1
			}
			return 1
		}
		// One interval ends where the next one begins.
		switch {
		case a.end == b.end:
			return 0
		case a.end:
			return -1
		}
		return 1
	})
	var open *Element
	finish := func(last string) {
		if open != nil {
			open.End = last
			yield(*open)
		}
		open = nil
	}
	for i := range e.all {
		finish(previous(e.all[i].Key))
		if !e.all[i].end {
			open = &e.all[i].Element
		}
	}
	finish(string(slices.Repeat([]byte{0xff}, e.size)))
}
