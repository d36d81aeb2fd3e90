package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Numbers of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	setConcat        = 0x80 // NFT_SET_CONCAT
	tableFlagDormant = 0x1
	tableFlagOwner   = 0x2
	tableUserdata    = 6
	elementEnd       = 0x1 // NFT_SET_ELEM_INTERVAL_END
	elementKeyEnd    = 10  // NFTA_SET_ELEM_KEY_END
	setTimeout       = 11  // NFTA_SET_TIMEOUT
	dataVerdict      = 0xffffff00
	policyDrop       = 0
	policyAccept     = 1
	verdictMapLength = 16
	elementUserdata  = 6
)

// Transaction collects changes for [Conn.Run]: the kernel makes all of them, or none,
// and no packet meets a half. What is wrong with one of them is what Run fails with.
//
// Objects that are there already are no error to those that add; to delete what is not
// there is one.
type Transaction struct {
	messages []byte
	parts    []part
	err      error // that of the first change that could not be encoded
	Elements int   // that are added and deleted
	// Generation, unless it is 0, is that of the ruleset of which what the changes go by
	// was read (see [Conn.Generation]): the kernel makes them only while it is the present
	// one, and [Conn.Run] fails with [ErrInterrupted] where it is not.
	Generation uint32
}

// part is a message, for who has to say which one was refused.
type part struct {
	begin int
	doing string // "adding set ip flatnet own"
	table ID
	shape *shape // of the elements that it is about
}

// Empty reports whether nothing was collected.
func (t *Transaction) Empty() bool { return len(t.parts) == 0 && t.err == nil }

func (t *Transaction) fail(err error) {
	if t.err == nil && err != nil {
		t.err = err
	}
}

func (t *Transaction) add(id ID, kind, flags uint16, doing string, about ...attribute) {
	t.parts = append(t.parts, part{begin: len(t.messages), doing: doing, table: id})
	t.messages = message(t.messages, unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, byte(id.Family), 0, 0, about...) // numbered when it is run
}

// AddTable makes a table, or wakes one that is switched off.
// Equivalent to: `nft add table FAMILY NAME`.
func (t *Transaction) AddTable(id ID, comment string) { t.addTable(id, comment, 0) }

// AddOwnedTable makes a table that nobody else can change, and that ends with the
// [Conn] that runs the transaction. Tables have owners from Linux 5.12 on.
// Equivalent to: `nft -i` with `add table FAMILY NAME { flags owner; }`.
func (t *Transaction) AddOwnedTable(id ID) { t.addTable(id, "", tableFlagOwner) }

func (t *Transaction) addTable(id ID, comment string, flags uint32) {
	about := []attribute{text(unix.NFTA_TABLE_NAME, id.Name), number(unix.NFTA_TABLE_FLAGS, flags)}
	if comment != "" {
		about = append(about, bytesOf(tableUserdata, commentNote(comment)))
	}
	t.add(id, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "adding table "+id.String(), about...)
}

// DeleteTable removes a table with all that is in it.
// Equivalent to: `nft delete table FAMILY NAME`.
func (t *Transaction) DeleteTable(id ID) {
	t.add(id, unix.NFT_MSG_DELTABLE, 0, "deleting table "+id.String(), text(unix.NFTA_TABLE_NAME, id.Name))
}

// AddSet makes a set or map, without elements.
// Equivalent to: `nft add set FAMILY TABLE NAME { … }`.
func (t *Transaction) AddSet(id ID, s Set) {
	made, err := s.shape()
	if err != nil {
		t.fail(err)
		return
	}
	about := []attribute{
		text(unix.NFTA_SET_TABLE, id.Name), text(unix.NFTA_SET_NAME, s.Name),
		number(unix.NFTA_SET_FLAGS, made.flags()),
		number(unix.NFTA_SET_KEY_TYPE, made.key.number()), number(unix.NFTA_SET_KEY_LEN, uint32(made.key.size())),
		number(unix.NFTA_SET_ID, uint32(len(t.parts)+1)), // unique in the transaction
	}
	switch {
	case made.verdict:
		about = append(about, number(unix.NFTA_SET_DATA_TYPE, dataVerdict), number(unix.NFTA_SET_DATA_LEN, verdictMapLength))
	case made.isMap:
		about = append(about, number(unix.NFTA_SET_DATA_TYPE, made.value.number()), number(unix.NFTA_SET_DATA_LEN, uint32(made.value.size())))
	}
	var description []attribute
	if s.Size > 0 {
		description = append(description, number(unix.NFTA_SET_DESC_SIZE, s.Size))
	}
	if made.intervals && len(made.key) > 1 {
		const concat, element, length = 2, 1, 1 // NFTA_SET_DESC_CONCAT, NFTA_LIST_ELEM, NFTA_SET_FIELD_LEN
		var lengths []attribute
		for _, d := range made.key {
			lengths = append(lengths, nested(element, number(length, uint32(d.size))))
		}
		description = append(description, nested(concat, lengths...))
	}
	if description != nil {
		about = append(about, nested(unix.NFTA_SET_DESC, description...))
	}
	about = append(about, bytesOf(unix.NFTA_SET_USERDATA, made.notes()))
	t.add(id, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, fmt.Sprintf("adding set %s %s", id, s.Name), about...)
}

// DeleteSet removes a set, which no rule may name.
// Equivalent to: `nft delete set FAMILY TABLE NAME`.
func (t *Transaction) DeleteSet(id ID, name string) {
	t.add(id, unix.NFT_MSG_DELSET, 0, fmt.Sprintf("deleting set %s %s", id, name), text(unix.NFTA_SET_TABLE, id.Name), text(unix.NFTA_SET_NAME, name))
}

// AddChain makes a chain without rules.
// Equivalent to: `nft add chain FAMILY TABLE NAME { BASE }`.
func (t *Transaction) AddChain(id ID, c Chain) {
	about := []attribute{text(unix.NFTA_CHAIN_TABLE, id.Name), text(unix.NFTA_CHAIN_NAME, c.Name)}
	b, err := c.base()
	if err != nil {
		t.fail(err)
		return
	}
	if b != nil {
		policy := uint32(policyAccept)
		if b.drops {
			policy = policyDrop
		}
		about = append(about,
			nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, b.hook), number(unix.NFTA_HOOK_PRIORITY, uint32(b.priority))),
			number(unix.NFTA_CHAIN_POLICY, policy), text(unix.NFTA_CHAIN_TYPE, b.kind),
		)
	}
	t.add(id, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, fmt.Sprintf("adding chain %s %s", id, c.Name), about...)
}

// DeleteChain removes a chain, which is empty and which nothing leads to.
// Equivalent to: `nft delete chain FAMILY TABLE NAME`.
func (t *Transaction) DeleteChain(id ID, name string) {
	t.add(id, unix.NFT_MSG_DELCHAIN, 0, fmt.Sprintf("deleting chain %s %s", id, name), text(unix.NFTA_CHAIN_TABLE, id.Name), text(unix.NFTA_CHAIN_NAME, name))
}

// FlushChain removes a chain's rules.
// Equivalent to: `nft flush chain FAMILY TABLE NAME`.
func (t *Transaction) FlushChain(id ID, name string) {
	t.add(id, unix.NFT_MSG_DELRULE, 0, fmt.Sprintf("flushing chain %s %s", id, name), text(unix.NFTA_RULE_TABLE, id.Name), text(unix.NFTA_RULE_CHAIN, name))
}

// RefillChain makes a chain with its rules, whatever is left of it.
func (t *Transaction) RefillChain(id ID, c Chain) {
	t.AddChain(id, c)
	t.FlushChain(id, c.Name)
	t.AddRules(id, c.Name, c.Rules)
}

// AddRules appends rules to a chain.
// Equivalent to: `nft add rule FAMILY TABLE CHAIN RULE`.
func (t *Transaction) AddRules(id ID, chain string, rules []string) {
	for _, rule := range rules {
		code, err := compile(byte(id.Family), rule)
		if err != nil {
			t.fail(fmt.Errorf("chain %s %s: %w", id, chain, err))
			return
		}
		t.add(id, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, fmt.Sprintf("adding to chain %s %s the rule %q", id, chain, rule),
			text(unix.NFTA_RULE_TABLE, id.Name), text(unix.NFTA_RULE_CHAIN, chain), expressions(code))
	}
}

// FlushSet removes a set's elements.
// Equivalent to: `nft flush set FAMILY TABLE NAME`.
func (t *Transaction) FlushSet(id ID, name string) {
	t.Elements++
	t.add(id, unix.NFT_MSG_DELSETELEM, 0, fmt.Sprintf("flushing set %s %s", id, name),
		text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name), text(unix.NFTA_SET_ELEM_LIST_SET, name))
}

// messageBytes is where a message with elements ends: its attribute has a length of 16
// bits, and the largest element takes less than the rest.
const messageBytes = 60_000

// AddElements adds elements to a set. One that is there already with the same value is
// no error.
// Equivalent to: `nft add element FAMILY TABLE SET { … }`.
func (t *Transaction) AddElements(id ID, s Set, elements func(yield func(Element) bool)) {
	t.changeElements(id, s, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "adding to", elements)
}

// DeleteElements deletes elements of a set, by their keys.
// Equivalent to: `nft delete element FAMILY TABLE SET { … }`.
func (t *Transaction) DeleteElements(id ID, s Set, elements func(yield func(Element) bool)) {
	t.changeElements(id, s, unix.NFT_MSG_DELSETELEM, 0, "deleting from", elements)
}

func (t *Transaction) changeElements(id ID, s Set, kind, flags uint16, doing string, elements func(yield func(Element) bool)) {
	made, err := s.shape()
	if err != nil {
		t.fail(err)
		return
	}
	list := -1 // where the message's list of elements begins
	finish := func() {
		if list >= 0 {
			endAttribute(t.messages, list)
			header := (*unix.NlMsghdr)(unsafe.Pointer(&t.messages[t.parts[len(t.parts)-1].begin]))
			header.Len = uint32(len(t.messages) - t.parts[len(t.parts)-1].begin)
		}
		list = -1
	}
	elements(func(e Element) bool {
		t.Elements++
		if list >= 0 && len(t.messages)-list > messageBytes {
			finish()
		}
		if list < 0 {
			t.add(id, kind, flags, fmt.Sprintf("%s set %s %s", doing, id, s.Name),
				text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name), text(unix.NFTA_SET_ELEM_LIST_SET, s.Name))
			t.parts[len(t.parts)-1].shape = &made
			list = len(t.messages)
			t.messages = beginAttribute(t.messages, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		}
		t.messages = made.append(t.messages, e, kind == unix.NFT_MSG_NEWSETELEM)
		return true
	})
	finish()
}

// append encodes an element for a list; its value only where it is to be added.
func (s *shape) append(b []byte, e Element, add bool) []byte {
	begin := len(b)
	b = beginAttribute(b, 1) // NFTA_LIST_ELEM
	b = appendData(b, unix.NFTA_SET_ELEM_KEY, e.Key)
	if s.intervals && !s.edges() {
		b = appendData(b, elementKeyEnd, e.End)
	}
	if add && s.isMap {
		b = s.appendValue(b, e.Value)
	}
	if add && e.Comment != "" {
		b = bytesOf(elementUserdata, commentNote(e.Comment)).append(b)
	}
	endAttribute(b, begin)
	if !s.edges() {
		return b
	}
	if after, is := next(e.End); is {
		begin := len(b)
		b = beginAttribute(b, 1)
		b = appendData(b, unix.NFTA_SET_ELEM_KEY, after)
		b = number(unix.NFTA_SET_ELEM_FLAGS, elementEnd).append(b)
		endAttribute(b, begin)
	}
	return b
}

// appendData encodes a key or a value.
func appendData(b []byte, kind uint16, raw string) []byte {
	begin := len(b)
	b = beginAttribute(b, kind)
	value := len(b)
	b = append(beginAttribute(b, unix.NFTA_DATA_VALUE), raw...)
	binary.NativeEndian.PutUint16(b[value:], uint16(len(b)-value)) // not nested
	binary.NativeEndian.PutUint16(b[value+2:], unix.NFTA_DATA_VALUE)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	endAttribute(b, begin)
	return b
}

func (s *shape) appendValue(b []byte, value string) []byte {
	if !s.verdict {
		return appendData(b, unix.NFTA_SET_ELEM_DATA, value)
	}
	code, chain := verdictOf(value)
	about := []attribute{number(unix.NFTA_VERDICT_CODE, uint32(code))}
	if chain != "" {
		about = append(about, text(unix.NFTA_VERDICT_CHAIN, chain))
	}
	return nested(unix.NFTA_SET_ELEM_DATA, nested(unix.NFTA_DATA_VERDICT, about...)).append(b)
}

// verdicts are how they are written.
var verdicts = map[string]int32{
	"accept": verdictAccept, "drop": verdictDrop, "return": verdictReturn, "jump": verdictJump, "goto": verdictGoto,
}

func verdictOf(words string) (code int32, chain string) {
	how, chain, _ := strings.Cut(words, " ")
	return verdicts[how], chain
}

func verdictText(code int32, chain string) string {
	for word, is := range verdicts {
		if is == code {
			return strings.TrimSpace(word + " " + chain)
		}
	}
	return fmt.Sprintf("verdict %d %s", code, chain)
}

// next returns the key after another one; there is none after the last.
func next(key string) (string, bool) {
	raw := []byte(key)
	for i := len(raw) - 1; i >= 0; i-- {
		if raw[i]++; raw[i] != 0 {
			return string(raw), true
		}
	}
	return "", false
}

// previous is the inverse of next.
func previous(key string) string {
	raw := []byte(key)
	for i := len(raw) - 1; i >= 0; i-- {
		if raw[i]--; raw[i] != 0xff {
			break
		}
	}
	return string(raw)
}

// Refusal is a change that the kernel has refused, and with it the whole transaction.
type Refusal struct {
	Doing string // and to which object
	Table ID     // in which that is; the zero value where it is about all of the transaction
	Err   error  // a [unix.Errno], with the kernel's words where it has some
}

func (r *Refusal) Error() string { return r.Doing + ": " + r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Run makes the changes. It fails with a [Refusal] for the first that the kernel does
// not make, and then it has made none.
func (c *Conn) Run(t *Transaction) error { return c.run(t, true) }

// RemoveTable removes a table by a transaction that run runs: [Conn.Run], or what tests
// put in its place. It returns what it removed, in words; "" where there was no table.
func (c *Conn) RemoveTable(id ID, run func(*Transaction) error) (removed string, err error) {
	there, err := c.Tables()
	if err != nil || !slices.Contains(there, id) {
		return "", err
	}
	deletion := &Transaction{}
	deletion.DeleteTable(id)
	err = run(deletion)
	switch {
	case errors.Is(err, unix.ENOENT): // somebody was faster
		return "", nil
	case err != nil:
		return "", fmt.Errorf("removing nftables table %s: %w", id, err)
	}
	return "nftables table " + id.String(), nil
}

// Check asks whether the kernel would make the changes.
// Equivalent to: `nft --check`.
func (c *Conn) Check(t *Transaction) error { return c.run(t, false) }

func (c *Conn) run(t *Transaction, commit bool) error {
	if t.err != nil || len(t.parts) == 0 {
		return t.err
	}
	first := c.socket.Sequence + 1
	subsystem := uint16(unix.NFNL_SUBSYS_NFTABLES)
	batch := make([]byte, 0, len(t.messages)+2*(unix.SizeofNlMsghdr+generic)+netlink.AttributeHeader+4)
	var about []attribute
	if t.Generation != 0 {
		about = append(about, number(unix.NFNL_BATCH_GENID, t.Generation))
	}
	batch = message(batch, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, subsystem, first, about...)
	offset := len(batch)
	batch = append(batch, t.messages...)
	for i, p := range t.parts {
		header := (*unix.NlMsghdr)(unsafe.Pointer(&batch[offset+p.begin]))
		header.Seq = first + uint32(i) + 1
		if i == len(t.parts)-1 {
			header.Flags |= unix.NLM_F_ACK
		}
	}
	last := first + uint32(len(t.parts))
	if commit {
		batch = message(batch, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, subsystem, last+1)
	}
	c.socket.Sequence = last + 1
	c.room(len(batch))
	if err := c.socket.Send(batch); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("writing nftables: %w: the socket's buffer is too small for %d bytes "+
				"(without CAP_NET_ADMIN on the machine it has at most twice net.core.wmem_max)", err, len(batch))
		}
		return fmt.Errorf("writing nftables: %w", err)
	}
	return c.answers(t, first, last)
}

// answers reads what the kernel has answered to a transaction: all of it is there when
// the sending ends.
func (c *Conn) answers(t *Transaction, first, last uint32) error {
	var refusal error
	done := false
	for {
		err := c.socket.Receive(unix.MSG_DONTWAIT, func(h *unix.NlMsghdr, payload []byte) error {
			if h.Type != unix.NLMSG_ERROR || h.Seq < first || h.Seq > last+1 {
				return nil
			}
			done = done || h.Seq == last
			at, err := netlink.Status(h, payload)
			if err == nil || refusal != nil {
				return nil
			}
			if errors.Is(err, unix.ERESTART) { // of the beginning: the generation is another
				refusal = fmt.Errorf("writing nftables: %w", ErrInterrupted)
				return nil
			}
			r := &Refusal{Doing: "writing nftables", Err: err}
			if i := int(h.Seq-first) - 1; i >= 0 && i < len(t.parts) {
				r.Doing, r.Table = t.describe(i, at), t.parts[i].table
			}
			refusal = r
			return nil
		})
		switch {
		case errors.Is(err, unix.EAGAIN) && refusal == nil && !done:
			return errors.New("writing nftables: the kernel has not answered")
		case errors.Is(err, unix.EAGAIN):
			return refusal
		case err != nil:
			return fmt.Errorf("reading the answer of nftables: %w", err)
		}
	}
}

// describe says which change of the transaction it is; of several elements the one at
// an offset in its message, where the kernel has told one.
func (t *Transaction) describe(i, offset int) string {
	p := t.parts[i]
	if p.shape == nil || offset <= 0 {
		return p.doing
	}
	raw := t.messages[p.begin:]
	if offset+netlink.AttributeHeader > len(raw) {
		return p.doing
	}
	length := int(binary.NativeEndian.Uint16(raw[offset:]))
	if length < netlink.AttributeHeader || offset+length > len(raw) {
		return p.doing
	}
	e, _ := p.shape.element(raw[offset+netlink.AttributeHeader : offset+length])
	if len(e.Key) != p.shape.key.size() {
		return p.doing
	}
	return fmt.Sprintf("%s { %s }", p.doing, p.shape.text(e))
}

// room gives the socket a buffer in which a transaction fits; more than
// net.core.wmem_max needs CAP_NET_ADMIN on the machine.
func (c *Conn) room(bytes int) {
	const usual = 64 << 10
	if bytes > max(usual, c.buffered) {
		if c.socket.Set(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes) != nil {
			_ = c.socket.Set(unix.SOL_SOCKET, unix.SO_SNDBUF, bytes) // what is too small shows
		}
		c.buffered = bytes
	}
}

// of makes a sequence of elements.
func of(elements []Element) func(yield func(Element) bool) { return slices.Values(elements) }
