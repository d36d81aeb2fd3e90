// Package nft makes tables of nftables what they are to be, through netlink and no
// program.
//
// A [Table] is a value: it says what sets, maps, chains, rules and elements there are
// to be, in the words of nft(8), and prints as `nft list` would. A [Keeper] makes the
// kernel's tables like it: it goes by what it left there, and writes only what differs,
// in one transaction ([Keeper.Sync]), or reads what is there, compares and repairs
// ([Keeper.Verify]). A [Watcher] tells when somebody else has written. A [Conn] does
// single steps, for who has no time for more.
//
// Elements of large sets are not kept: a set has [Elements], which are asked when they
// are needed; and who knows what has changed says so with a [Delta], so that what a
// change costs does not depend on how large the table is.
package nft

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Family is that of a table, as the kernel numbers it.
type Family uint8

const (
	IPv4 Family = unix.NFPROTO_IPV4
	IPv6 Family = unix.NFPROTO_IPV6
	INet Family = unix.NFPROTO_INET // both
)

// String is what nft calls the family.
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	}
	return "inet"
}

// ID is which table it is.
type ID struct {
	Family Family
	Name   string
}

// String is how commands of nft name the table.
func (i ID) String() string { return i.Family.String() + " " + i.Name }

// Table is what a table is to hold. What is in order stays in that order when it is
// printed; to the kernel only the order of rules matters.
type Table struct {
	ID
	Comment string
	Sets    []Set
	Chains  []Chain
}

// Set is a set, or a map if its type has a value.
type Set struct {
	Name string
	// Type is the declaration: `type ipv4_addr . inet_service : verdict`, or
	// `typeof ip saddr . ct mark`.
	Type  string
	Flags string // of interval, dynamic and timeout, joined by commas
	Size  uint32 // at most so many elements; 0 for no limit
	// Elements are nil where they come and go by themselves: what is found then is right.
	Elements Elements
}

// Chain is a chain with all its rules.
type Chain struct {
	Name string
	// Base is where a base chain hooks in, as nft lists it: `type nat hook postrouting
	// priority srcnat; policy accept;`. Of other chains it is empty.
	Base  string
	Rules []string
	// Spare is what the chain holds where the kernel refuses the rules of a Feature that
	// it belongs to: what is safe, and known to every kernel. Without a feature the rules
	// are needed, and there is no table without them.
	Feature string
	Spare   []string
}

// Element is one of a set's. Its parts are encoded as the kernel has them; see [Key].
type Element struct {
	Key     string
	End     string // of an interval: its last key; otherwise not looked at
	Value   string // of a map; of one of verdicts it is like `goto chain`
	Comment string // for people
	Packets uint64 // that a set which counts has counted; nothing that can be wanted
}

// Elements are what a set is to hold.
type Elements interface {
	Len() int
	// All calls yield for each, in any order, until that says false.
	All(yield func(Element) bool)
	// Find returns the one with a key.
	Find(key string) (Element, bool)
}

// Adopter are elements of which some may be as they were found, if that is as good:
// what an earlier process has left need not be written again.
type Adopter interface {
	Elements
	// Adopt is given the elements that are in the set and not wanted so. It reports
	// whether what is wanted may be another one now.
	Adopt(found []Element) bool
}

// List are a few elements, sorted by key.
type List []Element

func (l List) Len() int { return len(l) }

func (l List) All(yield func(Element) bool) { slices.Values(l)(yield) }

func (l List) Find(key string) (Element, bool) {
	i, found := slices.BinarySearchFunc(l, key, func(e Element, key string) int { return strings.Compare(e.Key, key) })
	if !found {
		return Element{}, false
	}
	return l[i], true
}

// chain returns the chain of a name.
func (t *Table) chain(name string) (Chain, bool) {
	if i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == name }); i >= 0 {
		return t.Chains[i], true
	}
	return Chain{}, false
}

func (t *Table) set(name string) (Set, bool) {
	if i := slices.IndexFunc(t.Sets, func(s Set) bool { return s.Name == name }); i >= 0 {
		return t.Sets[i], true
	}
	return Set{}, false
}

// Elements returns those of the set of a name; nil where there is no such set.
func (t *Table) Elements(set string) Elements {
	s, _ := t.set(set)
	return s.Elements
}

// declares reports whether two sets are of one kind, whatever is in them.
func (s Set) declares(o Set) bool {
	return s.Type == o.Type && s.Flags == o.Flags && s.Size == o.Size
}

// Text returns an element of the set as nft writes it.
func (s Set) Text(e Element) string {
	made, err := s.shape()
	if err != nil {
		return err.Error()
	}
	return made.text(e)
}

func (s shape) text(e Element) string {
	end := e.End
	if !s.intervals {
		end = ""
	}
	words := s.key.text(e.Key, end)
	if e.Comment != "" {
		words += fmt.Sprintf(" comment %q", e.Comment)
	}
	switch {
	case s.verdict:
		words += " : " + e.Value
	case s.isMap:
		words += " : " + s.value.text(e.Value, "")
	}
	return words
}

// String returns the table as `nft -f` reads it, and `nft list` would print it with
// its elements in their order.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t.ID)
	if t.Comment != "" {
		fmt.Fprintf(&b, "\tcomment %q\n\n", t.Comment)
	}
	for i, s := range t.Sets {
		if i > 0 {
			b.WriteString("\n")
		}
		s.write(&b)
	}
	for i, c := range t.Chains {
		if i > 0 || len(t.Sets) > 0 {
			b.WriteString("\n")
		}
		c.write(&b)
	}
	b.WriteString("}\n")
	return b.String()
}

func (s Set) write(b *strings.Builder) {
	made, err := s.shape()
	kind := "set"
	if made.isMap {
		kind = "map"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\t%s\n", kind, s.Name, s.Type)
	if err != nil {
		fmt.Fprintf(b, "\t\t# %v\n", err)
	}
	if s.Size > 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	if s.Flags != "" {
		fmt.Fprintf(b, "\t\tflags %s\n", s.Flags)
	}
	before := "\t\telements = { "
	if s.Elements != nil {
		s.Elements.All(func(e Element) bool {
			b.WriteString(before + made.text(e))
			before = ",\n\t\t             "
			return true
		})
		if s.Elements.Len() > 0 {
			b.WriteString(" }\n")
		}
	}
	b.WriteString("\t}\n")
}

func (c Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Base != "" {
		fmt.Fprintf(b, "\t\t%s\n", c.Base)
	}
	for _, rule := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", rule)
	}
	b.WriteString("\t}\n")
}

// base is where a base chain hooks in.
type base struct {
	kind     string // nat, filter, route
	hook     uint32
	priority int32
	drops    bool // by its policy
}

var (
	hooks      = []string{"prerouting", "input", "forward", "output", "postrouting"}
	priorities = map[string]int32{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
)

// base reads a chain's declaration; nil is one of a chain that is not a base chain.
func (c Chain) base() (*base, error) {
	if c.Base == "" {
		return nil, nil
	}
	var made base
	var hook, priority string
	declared, policy, _ := strings.Cut(c.Base, ";")
	if _, err := fmt.Sscanf(declared, "type %s hook %s priority %s", &made.kind, &hook, &priority); err != nil {
		return nil, fmt.Errorf("chain %s: %q: %w", c.Name, c.Base, err)
	}
	number := slices.Index(hooks, hook)
	if number < 0 {
		return nil, fmt.Errorf("chain %s: there is no hook %q", c.Name, hook)
	}
	made.hook = uint32(number)
	// `srcnat + 50` is more than one word.
	_, priority, _ = strings.Cut(declared, " priority ")
	name, offset, _ := strings.Cut(priority, " ")
	known := true
	if made.priority, known = priorities[name]; !known {
		if _, err := fmt.Sscanf(name, "%d", &made.priority); err != nil {
			return nil, fmt.Errorf("chain %s: priority %q: %w", c.Name, priority, err)
		}
	}
	if offset != "" {
		var n int32
		if _, err := fmt.Sscanf(strings.ReplaceAll(offset, " ", ""), "%d", &n); err != nil {
			return nil, fmt.Errorf("chain %s: priority %q: %w", c.Name, priority, err)
		}
		made.priority += n
	}
	switch strings.TrimSpace(policy) {
	case "", "policy accept;":
	case "policy drop;":
		made.drops = true
	default:
		return nil, fmt.Errorf("chain %s: %q", c.Name, policy)
	}
	return &made, nil
}
