package service

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"
)

// newFakeKeeper returns a keeper of tables that are nowhere but in memory.
func newFakeKeeper(t testing.TB) (*Keeper, *knftables.Fake) {
	t.Helper()
	fake := knftables.NewFake("", "")
	return &Keeper{nft: fake, reader: fakeReader{fake}}, fake
}

// fakeReader tells of a fake what the kernel would.
type fakeReader struct{ fake *knftables.Fake }

func (r fakeReader) table(f family) *knftables.FakeTable {
	return r.fake.Tables[f.knftables()][TableName]
}

func (r fakeReader) read(f family) (found, error) {
	table := r.table(f)
	if table == nil {
		return found{}, nil
	}
	t := found{exists: true, chains: map[string]foundChain{}, sets: map[string]foundSet{}}
	for name, c := range table.Chains {
		have := foundChain{}
		if c.Hook != nil {
			have.hook, have.kind = string(*c.Hook), string(*c.Type)
			have.priority, _ = strconv.Atoi(string(*c.Priority))
		}
		for _, rule := range c.Rules {
			copy(have.rules[:], strconv.Itoa(len(rule.Rule))+rule.Rule)
		}
		t.chains[name] = have
	}
	set := func(name string, flags []knftables.SetFlag) {
		for id := range numberOfSets {
			if s := id.schema(); s.name == name {
				have := foundSet{isMap: s.isMap(), interval: slices.Contains(flags, "interval"), timeout: id.dynamic()}
				have.keyLength, have.valueLength = s.lengths(f)
				t.sets[name] = have
				return
			}
		}
		t.sets[name] = foundSet{}
	}
	for name, s := range table.Sets {
		set(name, s.Flags)
	}
	for name, m := range table.Maps {
		set(name, m.Flags)
	}
	return t, nil
}

func (r fakeReader) elements(f family, id setID, yield func(foundElement)) error {
	table := r.table(f)
	s := id.schema()
	var all []*knftables.Element
	if m := table.Maps[s.name]; m != nil {
		all = m.Elements
	} else if set := table.Sets[s.name]; set != nil {
		all = set.Elements
	} else {
		return fmt.Errorf("there is no %s", s.name)
	}
	for _, e := range all {
		one := foundElement{}
		if e.Comment != nil {
			one.comment = []byte(*e.Comment)
		}
		one.key, one.end = encodeKey(s.shape, e.Key)
		if s.shape == shapePrefix {
			yield(foundElement{key: one.key})
			after, _ := netip.AddrFromSlice(one.end)
			if after = after.Next(); after.IsValid() {
				yield(foundElement{key: after.AsSlice(), last: true})
			}
			continue
		}
		switch {
		case s.value == "verdict":
			one.verdict = e.Value[0]
		case s.value == "mark":
			one.value = hostBytes(e.Value[0])
		case s.isMap():
			one.value = append(netip.MustParseAddr(e.Value[0]).AsSlice(), portBytes(e.Value[1])...)
		}
		yield(one)
	}
	return nil
}

// encodeKey is the opposite of decode.
func encodeKey(s shape, fields []string) (begin, end []byte) {
	addr := func(text string) []byte { return netip.MustParseAddr(text).AsSlice() }
	prefix := func(text string) netip.Prefix {
		if p, err := netip.ParsePrefix(text); err == nil {
			return p
		}
		a := netip.MustParseAddr(text)
		return netip.PrefixFrom(a, a.BitLen())
	}
	switch s {
	case shapeSource:
		p := prefix(fields[2])
		begin = append(addr(fields[0]), portBytes(fields[1])...)
		end = append(slices.Clone(begin), lastOf(p).AsSlice()...)
		begin = append(begin, p.Addr().AsSlice()...)
	case shapeFront:
		begin = append(addr(fields[0]), map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}[fields[1]], 0, 0, 0)
		begin = append(begin, portBytes(fields[2])...)
	case shapeMark:
		begin = hostBytes(fields[0])
	case shapeAddress:
		begin = addr(fields[0])
	case shapeTwice:
		begin = append(addr(fields[0]), addr(fields[1])...)
	case shapePrefix:
		p := prefix(fields[0])
		return p.Addr().AsSlice(), lastOf(p).AsSlice()
	case shapeEndpoint:
		begin = append(append(addr(fields[0]), portBytes(fields[1])...), hostBytes(fields[2])...)
	case shapeAffinity:
		begin = append(addr(fields[0]), hostBytes(fields[1])...)
	}
	return begin, end
}

func hostBytes(text string) []byte {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		panic(err)
	}
	return binary.NativeEndian.AppendUint32(nil, uint32(n))
}

func portBytes(text string) []byte {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(n)), 0, 0)
}

// dump is a fake's content with lines in order.
func dump(fake *knftables.Fake) string {
	lines := slices.Collect(strings.Lines(fake.Dump()))
	// Rules have an order of their own, elements none.
	var elements, others []string
	for _, l := range lines {
		if strings.HasPrefix(l, "add element ") {
			elements = append(elements, l)
		} else {
			others = append(others, l)
		}
	}
	slices.Sort(elements)
	return strings.Join(append(others, elements...), "")
}
