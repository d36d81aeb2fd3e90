package nft

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A rule is written once, in the words of nft(8), and that is what is shown of it
// and what a test compares. What the kernel is told is made of these words here,
// like `nft` makes it, and a test compares that with what nft makes of them. Only
// what flatnet's rules use is understood:
//
//	FIELDS VALUE, FIELDS != VALUE          one field; of bits, any of those that are given;
//	                                       of an address, a prefix as well
//	FIELD FIRST-LAST                       of a port
//	FIELDS @set, FIELDS != @set            several fields are joined by " . "
//	FIELDS vmap @map
//	accept, drop, return, jump CHAIN, goto CHAIN, reject, reject with tcp reset
//	masquerade, masquerade fully-random
//	dnat ip to FIELDS map @map             the map's value is an address and a port
//	ct mark set FIELDS map @map
//	meta mark set meta mark & N, meta mark set meta mark | N
//	add|update @set { FIELDS timeout DURATION }, … { FIELDS timeout DURATION : FIELDS }
//	add @set { FIELDS counter }            and count what comes with an element that is there
//	limit rate N/second burst N packets
//	log prefix "WORD" group N snaplen N
//	counter                                what it has counted is no part of the rule
//	tcp option maxseg size set rt mtu

// compiler makes expressions of a rule's words.
type compiler struct {
	family byte // of the table
	words  []string
	made   []expression
	// What the packet is known to be by what was compared before; 0 for unknown.
	packet, protocol byte
}

// compile returns what the kernel is told of a rule of a family's table.
func compile(family byte, rule string) (code []expression, err error) {
	c := &compiler{family: family, words: strings.Fields(rule)}
	if family != unix.NFPROTO_INET {
		c.packet = family
	}
	for len(c.words) > 0 {
		before := len(c.words)
		if err := c.statement(); err != nil {
			return nil, fmt.Errorf("rule %q, at %q: %w", rule, strings.Join(c.words, " "), err)
		}
		if len(c.words) == before {
			return nil, fmt.Errorf("rule %q: %q is not understood", rule, strings.Join(c.words, " "))
		}
	}
	return c.made, nil
}

func (c *compiler) emit(e ...expression) { c.made = append(c.made, e...) }

// take takes these words, if they come next.
func (c *compiler) take(words string) bool {
	n := strings.Count(words, " ") + 1
	if len(c.words) < n || strings.Join(c.words[:n], " ") != words {
		return false
	}
	c.words = c.words[n:]
	return true
}

// next takes one word.
func (c *compiler) next() (string, error) {
	if len(c.words) == 0 {
		return "", fmt.Errorf("something is missing")
	}
	word := c.words[0]
	c.words = c.words[1:]
	return word, nil
}

// expect takes these words, which have to come next.
func (c *compiler) expect(words string) error {
	if !c.take(words) {
		return fmt.Errorf("%q is missing", words)
	}
	return nil
}

// set takes the name of a set.
func (c *compiler) set() (string, error) {
	word, err := c.next()
	if err != nil || len(word) < 2 || word[0] != '@' {
		return "", fmt.Errorf("the name of a set is missing")
	}
	return word[1:], nil
}

func (c *compiler) statement() error {
	switch {
	case c.take("accept"):
		c.emit(verdict(verdictAccept, ""))
	case c.take("drop"):
		c.emit(verdict(verdictDrop, ""))
	case c.take("return"):
		c.emit(verdict(verdictReturn, ""))
	case c.take("jump"):
		return c.leads(verdictJump)
	case c.take("goto"):
		return c.leads(verdictGoto)
	case c.take("reject with tcp reset"):
		c.emit(reject(rejectReset))
	case c.take("reject"):
		c.reject()
	case c.take("masquerade fully-random"):
		c.emit(masquerade(natFullyRandom))
	case c.take("masquerade"):
		c.emit(masquerade(0))
	case c.take("dnat"):
		return c.translate()
	case c.take("ct mark set"):
		return c.mark()
	case c.take("meta mark set meta mark &"):
		return c.bitsOfMark(func(n uint32) (kept, changed uint32) { return n, 0 })
	case c.take("meta mark set meta mark |"):
		return c.bitsOfMark(func(n uint32) (kept, changed uint32) { return ^n, n })
	case c.take("notrack"):
		c.emit(noTrack())
	case c.take("counter"):
		c.emit(counter())
	case c.take("add"):
		return c.remember(dynsetAdd)
	case c.take("update"):
		return c.remember(dynsetUpdate)
	case c.take("limit rate"):
		return c.limit()
	case c.take("log prefix"):
		return c.log()
	case c.take("tcp option maxseg size set rt mtu"):
		const maximumSegment, afterKind, size = 2, 2, 2
		c.emit(routeMSS(0), byteorder(0, size), setTCPOption(maximumSegment, afterKind, size, 0))
	default:
		return c.match()
	}
	return nil
}

// limit is what follows `limit rate`.
func (c *compiler) limit() error {
	word, err := c.next()
	if err != nil {
		return err
	}
	word, is := strings.CutSuffix(word, "/second")
	rate, err := strconv.ParseUint(word, 10, 32)
	if err != nil || !is {
		return fmt.Errorf("%q is no rate by the second", word)
	}
	if err := c.expect("burst"); err != nil {
		return err
	}
	burst, err := c.number()
	if err != nil {
		return err
	}
	c.emit(limit(rate, burst))
	return c.expect("packets")
}

// log is what follows `log prefix`.
func (c *compiler) log() error {
	word, err := c.next()
	if err != nil {
		return err
	}
	prefix, err := strconv.Unquote(word)
	if err != nil {
		return fmt.Errorf("prefix %s: %w", word, err)
	}
	var numbers [2]uint32
	for i, name := range []string{"group", "snaplen"} {
		if err := c.expect(name); err != nil {
			return err
		}
		if numbers[i], err = c.number(); err != nil {
			return err
		}
	}
	c.emit(logTo(uint16(numbers[0]), prefix, numbers[1]))
	return nil
}

// number takes a number.
func (c *compiler) number() (uint32, error) {
	word, err := c.next()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(word, 10, 32)
	return uint32(n), err
}

func (c *compiler) leads(how int32) error {
	chain, err := c.next()
	c.emit(verdict(how, chain))
	return err
}

// reject says that the port cannot be reached.
func (c *compiler) reject() {
	const unreachable4, unreachable6, unreachableBoth = 3, 4, 1
	switch c.family {
	case unix.NFPROTO_IPV4:
		c.emit(reject(rejectICMP, unreachable4))
	case unix.NFPROTO_IPV6:
		c.emit(reject(rejectICMP, unreachable6))
	default:
		c.emit(reject(rejectBoth, unreachableBoth))
	}
}

// translate is what follows `dnat`.
func (c *compiler) translate() error {
	family, size := uint32(unix.NFPROTO_IPV4), 4
	if !c.take("ip to") {
		if err := c.expect("ip6 to"); err != nil {
			return err
		}
		family, size = unix.NFPROTO_IPV6, 16
	}
	if err := c.mapped(); err != nil {
		return err
	}
	c.emit(destination(family, 0, register(size/4)))
	return nil
}

// mark is what follows `ct mark set`.
func (c *compiler) mark() error {
	if err := c.mapped(); err != nil {
		return err
	}
	c.emit(setCT(ctMark, 0))
	return nil
}

// bitsOfMark changes bits of the packet's mark: a number says which are kept, and which
// of the result are changed.
func (c *compiler) bitsOfMark(by func(uint32) (kept, changed uint32)) error {
	word, err := c.next()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(word, 0, 32)
	if err != nil {
		return err
	}
	kept, changed := by(uint32(n))
	c.emit(meta(0, metaMark), bitwise(0, binary.NativeEndian.AppendUint32(nil, kept), binary.NativeEndian.AppendUint32(nil, changed)), setMeta(metaMark, 0))
	return nil
}

// mapped loads the value that a map has for fields.
func (c *compiler) mapped() error {
	if _, _, err := c.load(0); err != nil {
		return err
	}
	if err := c.expect("map"); err != nil {
		return err
	}
	name, err := c.set()
	c.emit(lookupValue(name, 0, register(0).number()))
	return err
}

// remember is what follows `add` and `update`.
func (c *compiler) remember(operation uint32) error {
	name, err := c.set()
	if err != nil {
		return err
	}
	if err := c.expect("{"); err != nil {
		return err
	}
	_, words, err := c.load(0)
	if err != nil {
		return err
	}
	if c.take("counter") {
		c.emit(count(operation, name, 0))
		return c.expect("}")
	}
	if err := c.expect("timeout"); err != nil {
		return err
	}
	word, err := c.next()
	if err != nil {
		return err
	}
	timeout, err := time.ParseDuration(word)
	if err != nil {
		return err
	}
	value := register(-1)
	if c.take(":") {
		// Like nft, where that is possible: at a register of 16 bytes.
		value = register((words + 3) / 4 * 4)
		if _, _, err := c.load(value); err != nil {
			return err
		}
	}
	c.emit(remember(operation, name, 0, value, timeout))
	return c.expect("}")
}

// match compares fields, or looks them up.
func (c *compiler) match() error {
	all, _, err := c.load(0)
	if err != nil {
		return err
	}
	first := all[0]
	if c.take("vmap") {
		name, err := c.set()
		c.emit(lookupValue(name, 0, verdictRegister))
		return err
	}
	operation, inverted := uint32(compareEqual), c.take("!=")
	if inverted {
		operation = compareUnequal
	}
	word, err := c.next()
	if err != nil {
		return err
	}
	if name, is := strings.CutPrefix(word, "@"); is && name != "" {
		c.emit(lookup(name, 0, inverted))
		return nil
	}
	if len(all) > 1 {
		return fmt.Errorf("several fields are looked up only in a set")
	}
	if low, high, is := strings.Cut(word, "-"); is && first.kind == kindPort && !inverted {
		return c.between(first, low, high)
	}
	if first.kind == kindBits && c.take("/") {
		return c.bitsOf(first, word, operation)
	}
	value, bits, err := first.value(word)
	if err != nil {
		return err
	}
	if first.kind == kindAddress && len(value) < first.size {
		// Like nft: a prefix of whole bytes is the beginning of the field.
		c.made[len(c.made)-1].with[payloadLength] = number(4, uint32(len(value)))
	}
	if bits != nil {
		c.emit(mask(0, bits))
		if first.kind == kindBits {
			operation ^= compareUnequal // not zero
		}
	}
	c.emit(compare(0, operation, value))
	if operation == compareEqual && first.kind == kindProtocol {
		c.protocol = value[0]
	}
	if operation == compareEqual && first.kind == kindFamily {
		c.packet = value[0]
	}
	return nil
}

// bitsOf compares some bits of a field, which follow, with those of them that have to be set.
func (c *compiler) bitsOf(f field, set string, operation uint32) error {
	of, err := c.next()
	if err != nil {
		return err
	}
	_, value, err := f.anyOf(set)
	if err != nil {
		return err
	}
	_, bits, err := f.anyOf(of)
	if err != nil {
		return err
	}
	c.emit(mask(0, bits), compare(0, operation, value))
	return nil
}

// between compares a field with both ends of a range.
func (c *compiler) between(f field, low, high string) error {
	first, _, err := f.value(low)
	if err != nil {
		return err
	}
	last, _, err := f.value(high)
	if err != nil {
		return err
	}
	c.emit(compare(0, compareAtLeast, first), compare(0, compareAtMost, last))
	return nil
}

// load takes fields, joined by dots, and loads them into registers from the given
// one on. It returns them and how many words they take.
func (c *compiler) load(at register) (all []field, words int, err error) {
	for {
		f, err := c.field()
		if err != nil {
			return nil, 0, err
		}
		all = append(all, f)
		if !c.take(".") {
			break
		}
	}
	for _, f := range all {
		c.require(metaNFProto, &c.packet, f.family)
		c.require(metaL4Proto, &c.protocol, f.needs)
	}
	for _, f := range all {
		c.emit(f.load(at + register(words)))
		words += f.words()
	}
	return all, words, nil
}

// require compares what the packet has to be, unless it is known to be that.
func (c *compiler) require(key uint32, known *byte, needed byte) {
	if needed != 0 && needed != *known {
		c.emit(meta(0, key), compare(0, compareEqual, []byte{needed}))
		*known = needed
	}
}

// field takes the words of one field, as many as there are.
func (c *compiler) field() (field, error) {
	if c.take("numgen random mod") {
		return c.random()
	}
	for n := min(longest, len(c.words)); n > 0; n-- {
		if f, is := fields()[strings.Join(c.words[:n], " ")]; is {
			c.words = c.words[n:]
			return f, nil
		}
	}
	return field{}, fmt.Errorf("no field that is known here")
}

func (c *compiler) random() (field, error) {
	var numbers [2]uint32
	for i := range numbers {
		if i == 1 && !c.take("offset") {
			break
		}
		word, err := c.next()
		if err != nil {
			return field{}, err
		}
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return field{}, err
		}
		numbers[i] = uint32(n)
	}
	return field{size: 4, load: func(r register) expression { return numgen(r, numbers[0], numbers[1]) }}, nil
}
