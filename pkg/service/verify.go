package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// schemaVersion is in the name of a chain without rules. A table of another
// version, or of none, is replaced as a whole.
const schemaVersion = "version-2"

// Verify reads the tables, makes good what differs from what is wanted, and
// returns what that was. What is right is not touched, and what the kernel has
// remembered of clients stays. All is done in one transaction.
func (k *Keeper) Verify(ctx context.Context, want *Ruleset) (Result, error) {
	want.take()
	first := k.known == nil
	k.known = nil
	before := k.refusals
	if before != (refusals{}) {
		// A module may have been loaded, or nft be another one by now.
		k.refusals, k.rules = refusals{}, nil
	}
	var last error
	// Others may write between reading and writing.
	for attempt := range 5 {
		r, err := k.verify(ctx, want, first, attempt >= 2)
		if err == nil {
			k.noteAll(want)
			repaired := len(r.Found) > 0
			if !k.verified {
				r.Found = nil // nobody has changed it behind our back
			}
			k.verified, r.compared, r.Refused = true, true, k.refused(want)
			err = k.verifyClients(want)
			if first || repaired {
				err = errors.Join(err, k.verifyFlows(want))
			}
			if err != nil {
				k.known = nil
			}
			return r, err
		}
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		last = err
		if attempt == 0 {
			if k.refusals = k.findRefusals(ctx, want); k.refusals == before && before != (refusals{}) {
				continue // nothing new to be said
			}
		}
		k.log().Warn("tables of Services could not be compared or written, trying again", "table", TableName, "error", oneLine(err))
	}
	return Result{}, last
}

// verify compares once. The first time, endpoints get the numbers that they are found
// with.
func (k *Keeper) verify(ctx context.Context, want *Ruleset, first, anew bool) (Result, error) {
	var result Result
	tx := k.begin()
	wanted := want.families()
	expected := want.lookup()
	var unused []tableName
	for _, f := range families {
		have, err := k.reader.read(f)
		if err != nil {
			return result, fmt.Errorf("table %s %s: %w", f.name(), TableName, err)
		}
		if !slices.Contains(wanted, f) {
			if have.exists {
				tx.deleteTable(f)
				result.Found = append(result.Found, fmt.Sprintf("table %s %s, which is not needed", f.name(), TableName))
			}
			continue
		}
		if !have.exists {
			if err := k.build(ctx, &result, f, want); err != nil {
				return result, err
			}
			tx.hook(f)
			result.Found = append(result.Found, fmt.Sprintf("table %s %s: is not there", f.name(), TableName))
			continue
		}
		if wrong := have.wrong(f); wrong != "" || anew {
			tx.deleteTable(f)
			tx.create(f, k.wantedChains(f, want), want)
			if wrong != "" {
				result.Found = append(result.Found, fmt.Sprintf("table %s %s: %s", f.name(), TableName, wrong))
			}
			continue
		}
		unused = append(unused, k.compareChains(tx, &result, f, have, want)...)
		if err := k.compareElements(tx, &result, f, expected, first); err != nil {
			return result, fmt.Errorf("table %s %s: %w", f.name(), TableName, err)
		}
	}
	if err := k.run(ctx, tx); err != nil {
		return result, fmt.Errorf("writing nftables tables %s: %w", TableName, err)
	}
	result.Elements, result.Objects = result.Elements+tx.elements, result.Objects+tx.objects
	if tx.objects > 0 {
		if err := k.learnRules(wanted); err != nil {
			return result, err
		}
	}
	for _, c := range unused {
		tidy := k.begin()
		tidy.deleteChain(c.family, c.name)
		// Before Linux 6.2 what led to it may take a while to let go of it.
		if err := k.run(ctx, tidy); err != nil {
			k.log().Debug("chain that is no longer needed stays for now", "table", TableName, "chain", c.name, "error", oneLine(err))
		}
	}
	return result, nil
}

// piece is how many elements of a new table are written in one transaction: nft
// needs three kilobytes of memory for each.
const piece = 10_000

// build writes a table that is not there, all but the base chains. No packet meets
// it before it has these, so it may come in pieces.
func (k *Keeper) build(ctx context.Context, result *Result, f family, want *Ruleset) error {
	tx := k.begin()
	var failed error
	flush := func() {
		if failed == nil {
			failed = k.run(ctx, tx)
		}
		result.Elements, result.Objects = result.Elements+tx.elements, result.Objects+tx.objects
		tx = k.begin()
	}
	tx.addTable(f)
	chains := slices.DeleteFunc(k.wantedChains(f, want), func(c chain) bool { return c.hook != "" })
	for _, c := range chains {
		tx.declareChain(f, c)
	}
	for _, c := range chains {
		tx.writeRules(f, c)
	}
	want.each(f, func(e element) {
		tx.addElement(f, e)
		if tx.elements == piece {
			flush()
		}
	})
	if flush(); failed != nil {
		return fmt.Errorf("writing nftables table %s %s: %w", f.name(), TableName, failed)
	}
	return nil
}

// hook writes the base chains of a table that was built.
func (t *transaction) hook(f family) {
	for _, c := range f.skeleton() {
		if c.hook != "" {
			t.declareChain(f, c)
			t.writeRules(f, c)
		}
	}
}

// create writes a whole table at once.
func (t *transaction) create(f family, chains []chain, want *Ruleset) {
	t.addTable(f)
	for _, c := range chains {
		t.declareChain(f, c)
	}
	for _, c := range chains {
		t.writeRules(f, c)
	}
	want.each(f, func(e element) { t.addElement(f, e) })
}

// wantedChains are all chains of a table.
func wantedChains(f family, want *Ruleset) []chain {
	chains := append([]chain{{name: schemaVersion}}, f.skeleton()...)
	for _, c := range sortedTableChains(want.chains) {
		if c.family == f {
			chains = append(chains, c.chain(f))
		}
	}
	return chains
}

// wantedChains are all chains of a table, with rules that are not refused.
func (k *Keeper) wantedChains(f family, want *Ruleset) []chain {
	chains := wantedChains(f, want)
	for i, c := range chains {
		chains[i] = k.refusals.permitted(f, c)
	}
	return chains
}

// wrong says why a table cannot be repaired but has to be replaced; nothing if it
// can.
func (t found) wrong(f family) string {
	if t.dormant {
		return "is switched off"
	}
	if _, found := t.chains[schemaVersion]; !found {
		return "is of another version of flatnet"
	}
	for _, c := range f.skeleton() {
		have, found := t.chains[c.name]
		if found && (have.hook != c.hook || have.priority != c.priority || have.drops || c.hook != "" && have.kind != "nat") {
			return fmt.Sprintf("chain %s hooks elsewhere", c.name)
		}
	}
	for id := range numberOfSets {
		s := id.schema()
		have, found := t.sets[s.name]
		if !found {
			return fmt.Sprintf("%s is missing", s.name)
		}
		keyLength, valueLength := s.lengths(f)
		if have.isMap != s.isMap() || have.interval != (s.flags == "interval") || have.timeout != id.dynamic() ||
			have.keyLength != keyLength || s.value != "verdict" && have.valueLength != valueLength {
			return fmt.Sprintf("%s is of another kind", s.name)
		}
	}
	if len(t.sets) > int(numberOfSets) {
		return "has a set or map that is not flatnet's"
	}
	return ""
}

// lengths returns the bytes that key and value have in the kernel.
func (s *schema) lengths(f family) (keyLength, valueLength uint32) {
	a := uint32(f.bytes())
	keyLength = [...]uint32{shapeFront: a + 8, shapeSource: 2*a + 4, shapeMark: 4, shapeAddress: a, shapeTwice: 2 * a, shapePrefix: a, shapeEndpoint: a + 8, shapeAffinity: a + 4}[s.shape]
	switch {
	case s.shape == shapeEndpoint || s.shape == shapeAffinity:
		valueLength = a + 4
	case s.value == "mark":
		valueLength = 4
	}
	return keyLength, valueLength
}

// compareChains adds what is wrong with chains to the transaction, and returns
// those that nothing needs.
func (k *Keeper) compareChains(tx *transaction, result *Result, f family, have found, want *Ruleset) (unused []tableName) {
	chains := k.wantedChains(f, want)
	wanted := map[string]bool{}
	for _, c := range chains {
		wanted[c.name] = true
		if _, there := have.chains[c.name]; !there {
			tx.declareChain(f, c)
		}
	}
	for _, c := range chains {
		if c.name == schemaVersion {
			continue
		}
		is, there := have.chains[c.name]
		knownRules, known := k.rules[tableName{f, c.name}]
		if there && known && is.rules == knownRules {
			continue
		}
		// What was written by an earlier process is not known. Writing it again
		// costs little, and changes nothing where it is right.
		tx.writeRules(f, c)
		if known || !there {
			result.Found = append(result.Found, fmt.Sprintf("%s chain %s", f.name(), c.name))
		}
	}
	for name := range have.chains {
		if !wanted[name] {
			unused = append(unused, tableName{f, name})
		}
	}
	// Those that go to others have the greater names, all but one.
	slices.SortFunc(unused, func(a, b tableName) int { return -compareStrings(a.name, b.name) })
	return unused
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// learnRules notes what the kernel makes of the rules that were written.
func (k *Keeper) learnRules(wanted []family) error {
	rules := map[tableName][32]byte{}
	for _, f := range wanted {
		t, err := k.reader.read(f)
		if err != nil {
			return fmt.Errorf("table %s %s: %w", f.name(), TableName, err)
		}
		for name, c := range t.chains {
			rules[tableName{f, name}] = c.rules
		}
	}
	k.rules = rules
	return nil
}

// compareElements adds what is wrong with elements to the transaction.
func (k *Keeper) compareElements(tx *transaction, result *Result, f family, want lookup, first bool) error {
	counts := [numberOfSets]int{}
	want.each(f, func(e element) { counts[e.set]++ })
	for id := range numberOfSets {
		var err error
		before := tx.elements
		switch {
		case id.dynamic():
			continue
		case id.schema().shape == shapePrefix:
			err = k.comparePrefixes(tx, f, id, want)
		default:
			err = k.compareSet(tx, f, id, want, counts[id], first && id.ofEndpoints())
		}
		if err != nil {
			return fmt.Errorf("elements of %s: %w", id.schema().name, err)
		}
		if n := tx.elements - before; n > 0 {
			result.Found = append(result.Found, fmt.Sprintf("%d elements of %s %s", n, f.name(), id.schema().name))
		}
	}
	return nil
}

// adopt gives endpoints the numbers that an earlier process has given them: to it they
// came in another order. Else a start would write again what is as good as it is. It is
// given the elements that are not as wanted, and reports whether that may be otherwise now.
func (l lookup) adopt(wrong []element) bool {
	found := map[*roster]map[uint32]netip.AddrPort{} // all fronts of a port are to have the same
	for _, e := range wrong {
		if t := l.fronts[e.key.front]; t != nil {
			if r, number := t.numbered(e.key.index); r != nil {
				if found[r] == nil {
					found[r] = map[uint32]netip.AddrPort{}
				}
				found[r][number] = e.value.at
			}
		}
	}
	for r, have := range found {
		r.adopt(have)
	}
	return len(found) > 0
}

// compareSet compares a set with what is wanted. It is read once where nothing is
// missing, and a second time where something is. Where that is asked for, numbers that
// are found are adopted, and what then is wanted is compared.
func (k *Keeper) compareSet(tx *transaction, f family, id setID, want lookup, count int, adopt bool) error {
	present, strange := 0, false
	var wrong, right []element
	err := k.reader.elements(f, id, func(found foundElement) {
		at, v, ok := id.decode(f, found)
		if !ok {
			strange = true
			return
		}
		wanted, is := want.want(id, at)
		switch {
		case is && wanted == v && (id != setServices || want.fronts[at.front].comment() == string(found.comment)):
			present++
		case is:
			wrong = append(wrong, element{set: id, key: at, value: v})
			right = append(right, want.element(id, at, wanted))
			present++
		default:
			wrong = append(wrong, element{set: id, key: at, value: v})
		}
	})
	if err != nil {
		return err
	}
	if strange {
		// Something that cannot be named, so everything goes.
		tx.flushSet(f, id)
		want.each(f, func(e element) {
			if e.set == id {
				tx.addElement(f, e)
			}
		})
		return nil
	}
	if adopt && want.adopt(wrong) {
		return k.compareSet(tx, f, id, want, count, false)
	}
	for _, e := range wrong {
		tx.deleteElement(f, e)
	}
	for _, e := range right {
		tx.addElement(f, e)
	}
	if present == count {
		return nil
	}
	there := make(map[key]struct{}, present)
	err = k.reader.elements(f, id, func(found foundElement) {
		if at, _, ok := id.decode(f, found); ok {
			there[at] = struct{}{}
		}
	})
	if err != nil {
		return err
	}
	want.each(f, func(e element) {
		if _, is := there[e.key]; !is && e.set == id {
			tx.addElement(f, e)
		}
	})
	return nil
}

// comparePrefixes compares a set of prefixes, which the kernel holds as where they
// begin and where they end, and writes all of it where it differs.
func (k *Keeper) comparePrefixes(tx *transaction, f family, id setID, want lookup) error {
	type edge struct {
		address netip.Addr
		end     bool
	}
	var have, wanted []edge
	err := k.reader.elements(f, id, func(found foundElement) {
		a, _ := netip.AddrFromSlice(found.key)
		// The end of nothing, which nft puts in front of the first.
		if found.last && a == f.zero() {
			return
		}
		have = append(have, edge{a, found.last})
	})
	if err != nil {
		return err
	}
	want.node.constant(f, func(e element) {
		if e.set != id {
			return
		}
		wanted = append(wanted, edge{e.key.prefix.Addr(), false})
		if next := lastOf(e.key.prefix).Next(); next.IsValid() {
			wanted = append(wanted, edge{next, true})
		}
	})
	sort := func(all []edge) []edge {
		var sorted []edge
		for _, e := range all {
			// Where one ends and the next begins may be one element or two.
			if !e.end || !slices.Contains(all, edge{e.address, false}) {
				sorted = append(sorted, e)
			}
		}
		slices.SortFunc(sorted, func(a, b edge) int { return a.address.Compare(b.address) })
		return sorted
	}
	if slices.Equal(sort(have), sort(wanted)) {
		return nil
	}
	tx.flushSet(f, id)
	want.node.constant(f, func(e element) {
		if e.set == id {
			tx.addElement(f, e)
		}
	})
	return nil
}
