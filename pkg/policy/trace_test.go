package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// packet is the first of a connection.
type packet struct {
	source, destination netip.AddrPort
	protocol            Protocol
}

func (p packet) String() string {
	return fmt.Sprintf("%s from %s to %s", p.protocol, p.source, p.destination)
}

// tracer follows packets through the words of a table's rules.
type tracer struct {
	t      testing.TB
	table  nft.Table
	chains map[string]nft.Chain
	// evicted is an address that somebody new has; none where it is not valid.
	evicted netip.Addr
}

func newTracer(t testing.TB, table nft.Table) *tracer {
	tr := &tracer{t: t, table: table, chains: map[string]nft.Chain{}}
	for _, c := range table.Chains {
		tr.chains[c.Name] = c
	}
	return tr
}

// passes says whether the packet leaves the table.
func (tr *tracer) passes(p packet) bool {
	return tr.chain("forward", p) != "drop" && tr.chain("output", p) != "drop"
}

// chain returns accept, drop, or "" where the packet comes back.
func (tr *tracer) chain(name string, p packet) string {
	c, is := tr.chains[name]
	if !is {
		tr.t.Fatalf("there is no chain %q", name)
	}
	for _, rule := range c.Rules {
		switch verdict := tr.rule(rule, p); {
		case verdict == "return":
			return ""
		case verdict != "":
			how, to, leads := strings.Cut(verdict, " ")
			if !leads {
				return verdict
			}
			end := tr.chain(to, p)
			if end != "" || how == "goto" {
				return end
			}
		}
	}
	return ""
}

// rule returns what a rule says of a packet; "" where it does not match or decide.
func (tr *tracer) rule(rule string, p packet) string {
	words := strings.Fields(rule)
	for len(words) > 0 {
		switch words[0] {
		case "accept", "drop", "return":
			return words[0]
		case "goto", "jump":
			return words[0] + " " + words[1]
		case "add", "limit": // counts, logs
			return ""
		}
		var key nft.Key
		var field string
		for {
			var ok bool
			if words[0] == "fib" {
				field, words = "fib saddr type", words[1:]
				words = words[2:]
				break
			}
			field = words[0] + " " + words[1]
			if key, ok = p.field(key, field); !ok {
				return ""
			}
			if words = words[2:]; words[0] != "." {
				break
			}
			words = words[1:]
		}
		unlike := words[0] == "!="
		if unlike {
			words = words[1:]
		}
		switch {
		case words[0] == "vmap":
			e, is := tr.find(words[1], key)
			if !is {
				return ""
			}
			return e.Value
		case strings.HasPrefix(words[0], "@"):
			if _, is := tr.find(words[0], key); is == unlike {
				return ""
			}
		case !p.is(field, words[0]):
			return ""
		}
		words = words[1:]
	}
	return ""
}

// field appends a field's value; it is not there where the packet is of another kind.
func (p packet) field(key nft.Key, name string) (nft.Key, bool) {
	four, two := p.source.Addr().Is4(), p.protocol.HasPorts()
	header, part, _ := strings.Cut(name, " ")
	switch {
	case header == "ip" && !four, header == "ip6" && four, (header == "tcp" || header == "udp" || header == "sctp") && p.protocol.String() != header:
		return key, false
	case part == "saddr":
		return key.Address(p.source.Addr()), true
	case part == "daddr":
		return key.Address(p.destination.Addr()), true
	case part == "sport":
		return key.Port(p.source.Port()), two || header == "th"
	case part == "dport":
		return key.Port(p.destination.Port()), two || header == "th"
	case name == "meta l4proto":
		return key.Protocol(uint8(p.protocol)), true
	case name == "ct state":
		return key, true
	}
	panic("no field " + name)
}

func (p packet) is(field, value string) bool {
	switch field {
	case "ct state":
		return slices.Contains(strings.Split(value, ","), "new")
	case "fib saddr type":
		return false // from no address of the node's
	case "meta l4proto":
		return p.protocol.String() == value
	}
	low, high, is := strings.Cut(value, "-")
	if !is {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil {
		panic(fmt.Sprintf("%s %s", field, value))
	}
	return uint16(first) <= p.destination.Port() && p.destination.Port() <= uint16(last)
}

func (tr *tracer) find(name string, key nft.Key) (nft.Element, bool) {
	name = strings.TrimPrefix(name, "@")
	i := slices.IndexFunc(tr.table.Sets, func(s nft.Set) bool { return s.Name == name })
	if i < 0 {
		tr.t.Fatalf("there is no set %q", name)
	}
	s := tr.table.Sets[i]
	if s.Name == closed.Evicted(len(key) == 16).Name {
		return nft.Element{}, tr.evicted.IsValid() && string(key) == string(nft.Key(nil).Address(tr.evicted))
	}
	if ranges, is := s.Elements.(nft.Ranges); is {
		a, _ := netip.AddrFromSlice(key)
		return nft.Element{}, ranges.Contains(a)
	}
	// The last field has no padding of its own length in the kernel, but in a key.
	return s.Elements.Find(string(key))
}
