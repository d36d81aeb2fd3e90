package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
)

// Range is a stretch of addresses of one subnet.
type Range struct {
	// Subnet is the network the addresses belong to, without host bits. Its
	// length is that of the addresses that are handed out.
	Subnet netip.Prefix
	// First and Last bound the stretch, both inclusive, both in Subnet.
	First, Last netip.Addr
	// Gateway is never handed out. It need not lie within the stretch. The
	// zero Addr reserves nothing.
	Gateway netip.Addr
}

// RangeError says what is wrong with a range, or with a pool of them.
type RangeError struct {
	// Range is the position of the range, such as "ranges[0][1]", or empty.
	Range string
	// Field is the JSON name of the field at fault, or empty if the range as
	// a whole is.
	Field string
	// Value is the offending text.
	Value string
	// Rule is what the value violates; it reads on from the value.
	Rule string
}

func (e *RangeError) Error() string {
	var b bytes.Buffer
	if e.Range != "" {
		b.WriteString(e.Range)
		b.WriteString(": ")
	}
	for _, word := range []string{e.Field, e.Value} {
		if word != "" {
			b.WriteString(word)
			b.WriteByte(' ')
		}
	}
	b.WriteString(e.Rule)
	return b.String()
}

// NewRange returns the range that host-local would use for subnet if nothing
// else was said: everything but the network address and, for IPv4, the
// broadcast address, with the first address as gateway. Subnets of one or two
// addresses have neither network nor broadcast address (RFC 3021, RFC 6164),
// so all of them can be handed out and no gateway is assumed. It fails with a
// *RangeError.
func NewRange(subnet netip.Prefix) (Range, error) {
	return newRange(subnet, netip.Addr{}, netip.Addr{}, netip.Addr{})
}

// newRange fills in what is not given (invalid addresses) and checks the rest.
func newRange(subnet netip.Prefix, first, last, gateway netip.Addr) (Range, error) {
	fail := func(field string, value any, rule string, args ...any) (Range, error) {
		return Range{}, &RangeError{Field: field, Value: fmt.Sprint(value), Rule: fmt.Sprintf(rule, args...)}
	}
	if !subnet.IsValid() {
		return fail("subnet", "", "is missing")
	}
	given := subnet
	subnet, ok := unmapPrefix(subnet)
	if !ok {
		return fail("subnet", given, "mixes IPv4 and IPv6: an IPv4-mapped subnet has a length of 96 or more")
	}
	if subnet != subnet.Masked() {
		return fail("subnet", given, "has host bits set, the network of length %d is %s", subnet.Bits(), subnet.Masked())
	}

	small := subnet.Addr().BitLen()-subnet.Bits() < 2
	lowest, highest := subnet.Addr(), lastOf(subnet)
	if !small {
		lowest = lowest.Next()
		if highest.Is4() {
			highest = highest.Prev()
		}
	}
	r := Range{Subnet: subnet, First: lowest, Last: highest, Gateway: gateway.Unmap()}
	if !small && !gateway.IsValid() {
		r.Gateway = subnet.Addr().Next()
	}
	if first.IsValid() {
		if r.First = first.Unmap(); !subnet.Contains(r.First) {
			return fail("rangeStart", first, "is outside of subnet %s", subnet)
		}
	}
	if last.IsValid() {
		if r.Last = last.Unmap(); !subnet.Contains(r.Last) {
			return fail("rangeEnd", last, "is outside of subnet %s", subnet)
		}
	}
	if r.Last.Less(r.First) {
		return fail("rangeStart", r.First, "is after rangeEnd %s", r.Last)
	}
	return r, nil
}

// validate checks a range that may have been made by hand.
func (r *Range) validate() error {
	fail := func(field string, value any, rule string, args ...any) error {
		return &RangeError{Field: field, Value: fmt.Sprint(value), Rule: fmt.Sprintf(rule, args...)}
	}
	switch {
	case !r.Subnet.IsValid():
		return fail("subnet", "", "is missing")
	case r.Subnet != r.Subnet.Masked():
		return fail("subnet", r.Subnet, "has host bits set, the network of length %d is %s", r.Subnet.Bits(), r.Subnet.Masked())
	case !r.Subnet.Contains(r.First):
		return fail("rangeStart", r.First, "is outside of subnet %s", r.Subnet)
	case !r.Subnet.Contains(r.Last):
		return fail("rangeEnd", r.Last, "is outside of subnet %s", r.Subnet)
	case r.Last.Less(r.First):
		return fail("rangeStart", r.First, "is after rangeEnd %s", r.Last)
	}
	return nil
}

// UnmarshalJSON reads a range as host-local's configuration has it:
//
//	{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.99", "gateway": "10.1.0.254"}
//
// All but the subnet may be absent, null or empty; see NewRange for what they
// default to. Other keys are ignored, as host-local does (the range may be the
// ipam section itself). IPv4-mapped IPv6 addresses become IPv4. It fails with
// a *RangeError.
func (r *Range) UnmarshalJSON(data []byte) error {
	var text struct {
		RangeStart, RangeEnd, Subnet, Gateway json.RawMessage
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return &RangeError{Value: abbreviate(data), Rule: "is not a range: a JSON object with a subnet is"}
	}
	subnet, err := parseSubnet(text.Subnet)
	if err != nil {
		return err
	}
	var addrs [3]netip.Addr
	for i, field := range []struct {
		name string
		text json.RawMessage
	}{{"rangeStart", text.RangeStart}, {"rangeEnd", text.RangeEnd}, {"gateway", text.Gateway}} {
		if addrs[i], err = parseAddr(field.name, field.text); err != nil {
			return err
		}
	}
	parsed, err := newRange(subnet, addrs[0], addrs[1], addrs[2])
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// MarshalJSON writes the range so that UnmarshalJSON reads it back.
func (r Range) MarshalJSON() ([]byte, error) {
	text := struct {
		Subnet     netip.Prefix `json:"subnet"`
		RangeStart netip.Addr   `json:"rangeStart,omitzero"`
		RangeEnd   netip.Addr   `json:"rangeEnd,omitzero"`
		Gateway    netip.Addr   `json:"gateway,omitzero"`
	}{r.Subnet, r.First, r.Last, r.Gateway}
	return json.Marshal(text)
}

func parseSubnet(raw json.RawMessage) (netip.Prefix, error) {
	text, err := parseText("subnet", raw)
	if err != nil || text == "" {
		return netip.Prefix{}, err
	}
	subnet, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, &RangeError{Field: "subnet", Value: text, Rule: "is not a network such as 10.1.0.0/24"}
	}
	return subnet, nil
}

func parseAddr(field string, raw json.RawMessage) (netip.Addr, error) {
	text, err := parseText(field, raw)
	if err != nil || text == "" {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, &RangeError{Field: field, Value: text, Rule: "is not an IP address"}
	}
	return addr, nil
}

func parseText(field string, raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", &RangeError{Field: field, Value: abbreviate(raw), Rule: "is not a JSON string"}
	}
	return text, nil
}

// abbreviate keeps an error readable whatever the configuration holds.
func abbreviate(data []byte) string {
	const enough = 64
	if data = bytes.TrimSpace(data); len(data) > enough {
		return string(data[:enough]) + "…"
	}
	return string(data)
}

// Contains says whether addr lies between First and Last.
func (r *Range) Contains(addr netip.Addr) bool {
	return addr.BitLen() == r.First.BitLen() && !addr.Less(r.First) && !r.Last.Less(addr)
}

// Overlaps says whether r and o have an address in common.
func (r *Range) Overlaps(o *Range) bool {
	return r.Contains(o.First) || o.Contains(r.First)
}

// String returns the bounds, as in 10.1.0.1-10.1.0.254.
func (r *Range) String() string {
	return r.First.String() + "-" + r.Last.String()
}

// size returns the number of addresses, the gateway included, or the largest
// uint64 if there are more.
func (r *Range) size() uint64 {
	a, b := r.First.As16(), r.Last.As16()
	low, borrow := bits.Sub64(be64(b[8:]), be64(a[8:]), 0)
	high, _ := bits.Sub64(be64(b[:8]), be64(a[:8]), borrow)
	if high != 0 || low == math.MaxUint64 {
		return math.MaxUint64
	}
	return low + 1
}

func be64(b []byte) uint64 {
	var v uint64
	for _, c := range b[:8] {
		v = v<<8 | uint64(c)
	}
	return v
}

// unmapPrefix turns an IPv4-mapped IPv6 network into the IPv4 one.
func unmapPrefix(p netip.Prefix) (netip.Prefix, bool) {
	if !p.Addr().Is4In6() {
		return p, true
	}
	if p.Bits() < 96 {
		return p, false
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96), true
}

// lastOf returns the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}
