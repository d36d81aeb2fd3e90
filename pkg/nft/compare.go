package nft

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// state is how something that is wanted was found.
type state uint8

const (
	absent    state = iota
	otherKind       // it has to be made anew
	otherRules
	right
)

// view is what is known of a table, from memory or from the kernel.
type view interface {
	setState(Set) state
	chainState(Chain) state
	setNames() []string
	chainNames() (bases, others []string)
	// left reports whether the keeper has needed the chain before, and left it there.
	left(chain string) bool
}

// remembered is a table as it was left.
type remembered struct{ *Table }

func (t remembered) setState(want Set) state {
	have, known := t.set(want.Name)
	switch {
	case !known:
		return absent
	case !have.declares(want):
		return otherKind
	}
	return right
}

func (t remembered) chainState(want Chain) state {
	have, known := t.chain(want.Name)
	switch {
	case !known:
		return absent
	case have.Base != want.Base:
		return otherKind
	case !slices.Equal(have.Rules, want.Rules):
		return otherRules
	}
	return right
}

func (t remembered) setNames() (names []string) {
	for _, s := range t.Sets {
		names = append(names, s.Name)
	}
	return names
}

func (t remembered) chainNames() (bases, others []string) {
	for _, c := range t.Chains {
		if c.Base != "" {
			bases = append(bases, c.Name)
		} else {
			others = append(others, c.Name)
		}
	}
	return bases, others
}

func (t remembered) left(string) bool { return true }

// present is a table as it was found.
type present struct {
	*found
	family Family
	before map[string]bool // chains that the keeper has left there
}

func (p present) left(chain string) bool { return p.before[chain] }

func (p present) setState(want Set) state {
	have, known := p.sets[want.Name]
	if !known {
		return absent
	}
	made, err := want.shape()
	if err != nil || !have.is(made, want.Size) {
		return otherKind
	}
	return right
}

// is reports whether a set is as it was declared. The length of a verdict says nothing.
func (s foundSet) is(made shape, size uint32) bool {
	return s.flags == made.flags() && s.size == size && !s.timeout &&
		s.keyType == made.key.number() && s.keyLength == uint32(made.key.size()) &&
		(made.verdict || s.valueType == made.value.number() && s.valueLength == uint32(made.value.size()))
}

func (p present) chainState(want Chain) state {
	have, known := p.chains[want.Name]
	wanted, err := want.base()
	switch {
	case !known:
		return absent
	case err != nil || (wanted == nil) != (have.base == nil) || wanted != nil && *wanted != *have.base:
		return otherKind
	case !have.holds(p.family, want.Rules):
		return otherRules
	}
	return right
}

func (p present) setNames() []string { return slices.Sorted(maps.Keys(p.sets)) }

func (p present) chainNames() (bases, others []string) {
	for _, name := range slices.Sorted(maps.Keys(p.chains)) {
		if p.chains[name].base != nil {
			bases = append(bases, name)
		} else {
			others = append(others, name)
		}
	}
	return bases, others
}

// edit is what makes a table, which is there, another one.
type edit struct {
	want  *Table
	found []string // each difference, the elements of one set together
	count int      // objects and elements that differ

	wake                bool // the table has flags, which switch it off
	dropSets, dropBases []string
	addSets             []Set
	addChains           []Chain
	refill              []Chain // whose rules are to be written again
	changes             []elementChange
	// unused are chains that are not wanted and that no packet enters by itself. They go
	// later: before Linux 6.2 a chain cannot go together with what led to it.
	unused []string
}

// elementChange is a difference of one set.
type elementChange struct {
	set            Set
	extra, missing []Element
}

func (e *edit) note(count int, format string, arg ...any) {
	e.found = append(e.found, fmt.Sprintf(format, arg...))
	e.count += count
}

// compareObjects finds what differs but for elements. The sets that are right are
// passed to elements, which says what differs in them.
func compareObjects(have view, want *Table, elements func(Set) (extra, missing []Element, err error)) (*edit, error) {
	e := &edit{want: want}
	for _, s := range want.Sets {
		switch have.setState(s) {
		case absent:
			e.note(1, "set %s is missing", s.Name)
			e.addSets = append(e.addSets, s)
		case otherKind:
			e.note(1, "set %s is of another type", s.Name)
			e.dropSets, e.addSets = append(e.dropSets, s.Name), append(e.addSets, s)
		default:
			if s.Elements == nil {
				continue
			}
			extra, missing, err := elements(s)
			if err != nil {
				return nil, fmt.Errorf("set %s %s: %w", want.ID, s.Name, err)
			}
			e.compared(s, extra, missing)
		}
	}
	for _, name := range have.setNames() {
		if _, wanted := want.set(name); !wanted {
			e.note(1, "set %s is not wanted", name)
			e.dropSets = append(e.dropSets, name)
		}
	}
	for _, c := range want.Chains {
		switch have.chainState(c) {
		case absent:
			e.note(1, "chain %s is missing", c.Name)
			e.addChains = append(e.addChains, c)
		case otherKind:
			e.note(1, "chain %s is not %s", c.Name, c.Base)
			e.dropBases, e.addChains = append(e.dropBases, c.Name), append(e.addChains, c)
		case otherRules:
			e.note(1, "chain %s has other rules", c.Name)
			e.refill = append(e.refill, c)
		default:
			// A set that a rule names cannot be dropped.
			if e.drops(c.Rules) {
				e.refill = append(e.refill, c)
			}
		}
	}
	unwanted := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, is := want.chain(name); return is })
	}
	bases, others := have.chainNames()
	for _, name := range unwanted(bases) {
		e.note(1, "chain %s is not wanted", name)
		e.dropBases = append(e.dropBases, name)
	}
	for _, name := range unwanted(others) {
		if !have.left(name) {
			e.note(1, "chain %s is not wanted", name)
		}
		e.unused = append(e.unused, name)
	}
	return e, nil
}

// drops reports whether rules name a set that is dropped and made again.
func (e *edit) drops(rules []string) bool {
	return len(e.dropSets) > 0 && slices.ContainsFunc(rules, func(rule string) bool {
		return slices.ContainsFunc(strings.Fields(rule), func(word string) bool {
			name, is := strings.CutPrefix(word, "@")
			return is && slices.Contains(e.dropSets, name)
		})
	})
}

// compared notes what differs in a set.
func (e *edit) compared(s Set, extra, missing []Element) {
	if len(extra)+len(missing) == 0 {
		return
	}
	e.changes = append(e.changes, elementChange{s, extra, missing})
	made, _ := s.shape()
	if len(missing) > 0 {
		e.note(len(missing), "set %s lacks %d of %d: %s", s.Name, len(missing), s.Elements.Len(), made.some(missing))
	}
	if len(extra) > 0 {
		e.note(len(extra), "set %s has %d too many: %s", s.Name, len(extra), made.some(extra))
	}
}

// some joins at most a few elements, for people to read.
func (s shape) some(all []Element) string {
	const most = 5
	var words []string
	for _, e := range all[:min(len(all), most)] {
		words = append(words, s.text(e))
	}
	if len(all) > most {
		words = append(words, "…")
	}
	return strings.Join(words, ", ")
}

// objects are how many tables, sets and chains are written.
func (e *edit) objects() int {
	return len(e.dropSets) + len(e.dropBases) + len(e.addSets) + len(e.addChains) + len(e.refill)
}

// write adds the changes to a transaction. A chain's rules, old or new, are all in
// force for any packet. The order is that of who needs whom: rules go first and come
// last; and within a set deletions come first, as an interval may be in the way of
// another one.
func (e *edit) write(t *Transaction) {
	id := e.want.ID
	if e.wake {
		t.AddTable(id, e.want.Comment)
	}
	for _, name := range e.dropBases {
		t.FlushChain(id, name)
	}
	for _, c := range e.refill {
		t.FlushChain(id, c.Name)
	}
	// They may name a set that is dropped, now or by a later change.
	for _, name := range e.unused {
		t.FlushChain(id, name)
	}
	for _, c := range e.changes {
		t.DeleteElements(id, c.set, of(c.extra))
	}
	for _, name := range e.dropSets {
		t.DeleteSet(id, name)
	}
	for _, name := range e.dropBases {
		t.DeleteChain(id, name)
	}
	for _, s := range e.addSets {
		t.AddSet(id, s)
	}
	for _, c := range e.addChains {
		t.AddChain(id, c)
		if c.Base == "" {
			t.FlushChain(id, c.Name) // it may have been left there, with rules
		}
	}
	for _, c := range e.changes {
		t.AddElements(id, c.set, of(c.missing))
	}
	for _, s := range e.addSets {
		if s.Elements != nil {
			t.AddElements(id, s, s.Elements.All)
		}
	}
	for _, c := range slices.Concat(e.refill, e.addChains) {
		t.AddRules(id, c.Name, c.Rules)
	}
}

// differ returns what differs between what is remembered of a set and what is wanted.
// Of others than [Ranges] and [List] that is only what somebody has said.
func differ(have, want Elements) (extra, missing []Element) {
	switch w := want.(type) {
	case Ranges:
		h, _ := have.(Ranges)
		more, less := h.differ(w)
		return slices.Collect(more.All), slices.Collect(less.All)
	case List:
		h, _ := have.(List)
		for _, e := range h {
			if is, wanted := w.Find(e.Key); !wanted || is != e {
				extra = append(extra, e)
			}
		}
		for _, e := range w {
			if is, there := h.Find(e.Key); !there || is != e {
				missing = append(missing, e)
			}
		}
	}
	return extra, missing
}

// compareElements reads a set and returns what differs from what is wanted. What is
// wanted is not copied: the set is read once where nothing is missing, and a second
// time where something is. With adopt, what is wanted may become what was found.
func (c *Conn) compareElements(id ID, s Set, adopt bool) (extra, missing []Element, err error) {
	made, err := s.shape()
	if err != nil {
		return nil, nil, err
	}
	plain := func(e Element) Element {
		if !made.intervals {
			e.End = ""
		}
		return e
	}
	there := 0
	err = c.Elements(id, s, func(have Element) {
		want, wanted := s.Elements.Find(have.Key)
		switch {
		case wanted && plain(want) == plain(have):
			there++
		case wanted:
			there++
			extra, missing = append(extra, have), append(missing, want)
		default:
			extra = append(extra, have)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	if a, is := s.Elements.(Adopter); is && adopt && len(extra) > 0 && a.Adopt(extra) {
		return c.compareElements(id, s, false)
	}
	if there == s.Elements.Len() {
		return extra, missing, nil
	}
	has := make(map[string]struct{}, there)
	err = c.Elements(id, s, func(have Element) { has[have.Key] = struct{}{} })
	s.Elements.All(func(e Element) bool {
		if _, is := has[e.Key]; !is {
			missing = append(missing, e)
		}
		return true
	})
	return extra, missing, err
}
