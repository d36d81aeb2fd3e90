package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Keeper makes some of the kernel's tables what they are to be. It works in the network
// namespace in which its first method is called: it keeps a socket there, by which its
// transactions are recognised. Its methods may be called at the same time.
type Keeper struct {
	Keeps []ID         // one of them that is not wanted is removed
	Log   *slog.Logger // of what goes wrong; nil for none
	// Step is called before every transaction; an error takes the place of the
	// transaction. Tests make changes fail with it, and end a keeper between two.
	Step func(operation string) error

	mu       sync.Mutex
	conn     *Conn
	port     atomic.Uint32          // the socket's
	known    map[ID]*Table          // what the tables hold, as far as the keeper knows; nil if it does not
	began    bool                   // something was known once
	left     map[ID]map[string]bool // chains that were needed once
	unused   map[ID][]string        // of these, that are not any more and are still there
	refusals map[ID]refusal         // as of the last comparison
}

// Delta is what has changed of a set whose elements are asked for.
type Delta struct {
	Table          ID
	Set            string
	Deleted, Added []Element
}

// Result says what was done.
type Result struct {
	Elements int      // that were added or deleted
	Objects  int      // tables, sets and chains that were written
	Found    []string // what was not as it had been left
	Count    int      // objects and elements that differed
	Unused   int      // chains that nothing leads to any more, for [Keeper.Tidy]
}

func (r *Result) add(e *edit) {
	r.Count += e.count
	r.Objects += e.objects()
}

// note adds what was found; it names the table where the keeper keeps several.
func (k *Keeper) note(r *Result, id ID, found ...string) {
	for _, what := range found {
		if len(k.Keeps) > 1 {
			what = fmt.Sprintf("table %s: %s", id, what)
		}
		r.Found = append(r.Found, what)
	}
}

// Sync makes the tables what is wanted. It goes by what the keeper left in them: only
// what differs is written, in one transaction, and nothing is read. Sets with others
// than [Ranges] and [List] are as they were but for the deltas. Where the keeper does not
// know, or the kernel contradicts, Sync is [Keeper.Verify], and says so by the second
// result.
//
// Nobody may write to what a table consists of any more. Who wants the same as the last
// time gives the same slice again: then nothing but the deltas is looked at.
func (k *Keeper) Sync(ctx context.Context, want []Table, deltas ...Delta) (r Result, compared bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		r, err = k.verify(ctx, want)
		return r, true, err
	}
	t := &Transaction{}
	unused := map[ID][]string{}
	for _, id := range k.Keeps {
		w, have := tableOf(want, id), k.known[id]
		switch {
		case w == nil && have == nil:
		case w == nil:
			t.DeleteTable(id)
			r.Objects, r.Count = r.Objects+1, r.Count+1
		case have == nil:
			w = k.permitted(w)
			if err := k.build(w, t, &r); err != nil {
				return k.contradicted(ctx, want, err)
			}
		case have == w: // the same value: there is no more than the deltas to it
			e := &edit{want: w}
			for _, d := range deltas {
				if s, is := w.set(d.Set); is && d.Table == id {
					e.compared(s, d.Deleted, d.Added)
				}
			}
			e.write(t)
			r.add(e)
		default:
			e, err := compareObjects(remembered{have}, k.permitted(w), func(s Set) (extra, missing []Element, err error) {
				before := have.Elements(s.Name)
				extra, missing = differ(before, s.Elements)
				for _, d := range deltas {
					if d.Table == id && d.Set == s.Name {
						extra, missing = append(extra, d.Deleted...), append(missing, d.Added...)
					}
				}
				return extra, missing, nil
			})
			if err != nil {
				return r, false, err
			}
			e.write(t)
			r.add(e)
			unused[id] = e.unused
		}
	}
	if err := k.run(t); err != nil {
		return k.contradicted(ctx, want, err)
	}
	r.Elements += t.Elements
	k.remember(want)
	r.Unused = k.leave(unused)
	return r, false, nil
}

// contradicted follows a refusal of what should have been possible.
func (k *Keeper) contradicted(ctx context.Context, want []Table, err error) (Result, bool, error) {
	k.log().Warn("nftables table is not as it was left, comparing all of it", "table", k.names(), "error", err)
	r, err := k.verify(ctx, want)
	return r, true, err
}

// Verify reads the tables, makes good what differs from what is wanted, and says what
// that was. What is right is not touched, and what the kernel itself has put into sets
// stays. All is done in one transaction, but for tables that are not there: a large one
// is built in pieces, and no packet meets it before it is whole.
func (k *Keeper) Verify(ctx context.Context, want []Table) (Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.verify(ctx, want)
}

// attempts are how often tables are read and written, because others may write between
// the two; of these the last ones make tables anew.
const attempts, sparing = 5, 2

func (k *Keeper) verify(ctx context.Context, want []Table) (Result, error) {
	k.known = nil
	before := k.refusals
	k.refusals = nil // a module may have been loaded
	first := !k.began
	var last error
	var r Result // all that was found
	for attempt := range attempts {
		one, err := k.verifyOnce(want, first, attempt >= sparing)
		if len(one.Found) > len(r.Found) {
			r.Found, r.Count = one.Found, one.Count
		}
		r.Elements, r.Objects = r.Elements+one.Elements, r.Objects+one.Objects
		if err == nil {
			k.remember(want)
			k.began = true
			r.Unused = k.leave(nil)
			return r, nil
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		last = err
		if attempt == 0 {
			if k.refusals = k.findRefusals(want); equalRefusals(k.refusals, before) && len(before) > 0 {
				continue // nothing new to be said
			}
		}
		k.log().Warn("nftables table could not be compared or written, trying again", "table", k.names(), "error", err)
	}
	return r, last
}

// verifyOnce compares and repairs.
func (k *Keeper) verifyOnce(want []Table, first, anew bool) (r Result, err error) {
	c, err := k.connected()
	if err != nil {
		return r, err
	}
	var t *Transaction
	var missing []*Table
	var unused map[ID][]string
	err = c.steady(func() error {
		r, t, missing, unused = Result{}, &Transaction{}, nil, map[ID][]string{}
		for _, id := range k.Keeps {
			want := tableOf(want, id)
			have, err := c.read(id)
			switch {
			case err != nil:
				return fmt.Errorf("reading nftables table %s: %w", id, err)
			case have == nil && want != nil:
				k.note(&r, id, "table is missing")
				missing = append(missing, k.permitted(want))
			case have != nil && want == nil:
				k.note(&r, id, "table is not wanted")
				t.DeleteTable(id)
				r.Objects, r.Count = r.Objects+1, r.Count+1
			case have != nil:
				if unused[id], err = k.compare(c, have, k.permitted(want), first, anew, t, &r); err != nil {
					return fmt.Errorf("reading nftables table %s: %w", id, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		k.forget()
		return r, err
	}
	for _, want := range missing {
		if err := k.build(want, t, &r); err != nil {
			return r, err
		}
	}
	if err := k.run(t); err != nil {
		return r, err
	}
	r.Elements += t.Elements
	k.unused = unused
	k.tidy(c)
	return r, nil
}

// compare compares a table that is there, adds what makes it right to the transaction,
// and returns the chains that are not needed.
func (k *Keeper) compare(c *Conn, have *found, want *Table, first, anew bool, t *Transaction, r *Result) (unused []string, err error) {
	id := want.ID
	e, err := compareObjects(present{have, id.Family, k.left[id]}, want, func(s Set) (extra, missing []Element, err error) {
		return c.compareElements(id, s, first)
	})
	if err != nil {
		return nil, err
	}
	if have.flags != 0 {
		e.wake = true
		e.note(1, "table has flags")
	}
	r.add(e)
	k.note(r, id, e.found...)
	// The kernel wakes a table and changes its chains, but not at once.
	if anew && e.count > 0 || e.wake && len(e.addChains)+len(e.dropBases) > 0 {
		// The kernel hooks a new chain in before the old one, so a packet that is between
		// the two when the new generation begins passes both empty: this is for where
		// nothing less helps.
		t.DeleteTable(id)
		t.create(want)
		return nil, nil
	}
	e.write(t)
	return e.unused, nil
}

// piece is how many elements of a new table are written in one transaction.
const piece = 10_000

// build writes a table that is not there. Of a large one only what packets enter is
// left for the transaction: no packet meets it before it has that.
func (k *Keeper) build(want *Table, t *Transaction, r *Result) error {
	r.Count++
	r.Objects += 1 + len(want.Chains)
	elements := 0
	for _, s := range want.Sets {
		if s.Elements != nil {
			elements += s.Elements.Len()
		}
	}
	if elements <= piece {
		t.create(want)
		return nil
	}
	inner := *want
	inner.Chains = slices.DeleteFunc(slices.Clone(want.Chains), func(c Chain) bool { return c.Base != "" })
	first := &Transaction{}
	first.declare(&inner)
	first.fill(&inner)
	if err := k.run(first); err != nil {
		return err
	}
	for _, s := range want.Sets {
		if s.Elements == nil {
			continue
		}
		var part []Element
		var failed error
		flush := func() bool {
			t := &Transaction{}
			t.AddElements(want.ID, s, of(part))
			failed = k.run(t)
			r.Elements += len(part)
			part = part[:0]
			return failed == nil
		}
		s.Elements.All(func(e Element) bool {
			part = append(part, e)
			return len(part) < piece || flush()
		})
		if failed == nil && len(part) > 0 {
			flush()
		}
		if failed != nil {
			return failed
		}
	}
	for _, c := range want.Chains {
		if c.Base != "" {
			t.AddChain(want.ID, c)
			t.AddRules(want.ID, c.Name, c.Rules)
		}
	}
	return nil
}

// create adds a whole table.
func (t *Transaction) create(want *Table) {
	t.declare(want)
	for _, s := range want.Sets {
		if s.Elements != nil {
			t.AddElements(want.ID, s, s.Elements.All)
		}
	}
	t.fill(want)
}

func (t *Transaction) declare(want *Table) {
	t.AddTable(want.ID, want.Comment)
	for _, s := range want.Sets {
		t.AddSet(want.ID, s)
	}
	for _, c := range want.Chains {
		t.AddChain(want.ID, c)
	}
}

func (t *Transaction) fill(want *Table) {
	for _, c := range want.Chains {
		t.AddRules(want.ID, c.Name, c.Rules)
	}
}

// Delete deletes elements of a set that fills itself, by their keys. One that has ended
// meanwhile fails the deletion of all with [unix.ENOENT].
func (k *Keeper) Delete(id ID, s Set, elements []Element) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &Transaction{}
	t.DeleteElements(id, s, of(elements))
	return k.run(t)
}

// Elements is [Conn.Elements] with the keeper's socket.
func (k *Keeper) Elements(id ID, s Set, yield func(Element)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connected()
	if err != nil {
		return err
	}
	return c.Elements(id, s, yield)
}

// Remove deletes the tables, and returns those that were there.
// Equivalent to: `nft delete table FAMILY NAME`, for each.
func (k *Keeper) Remove() (removed []ID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connected()
	if err != nil {
		return nil, err
	}
	there, err := c.Tables()
	if err != nil {
		return nil, err
	}
	t := &Transaction{}
	for _, id := range k.Keeps {
		if slices.Contains(there, id) {
			t.DeleteTable(id)
			removed = append(removed, id)
		}
	}
	if err := k.run(t); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	k.remember(nil)
	return removed, nil
}

// Forget makes the keeper compare everything the next time.
func (k *Keeper) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known = nil
}

// Close lets go of the keeper's socket and of what it knows. The tables stay. A later
// call of another method begins anew, in the namespace of its caller.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
}

// Port is the keeper's socket's, by which notifications tell whose transaction they are
// about; 0 while there is none.
func (k *Keeper) Port() uint32 { return k.port.Load() }

func (k *Keeper) run(t *Transaction) error {
	if t.Empty() {
		return nil
	}
	c, err := k.connected()
	if err != nil {
		return err
	}
	if k.Step != nil {
		err = k.Step("nft write " + k.names())
	}
	if err == nil {
		err = c.Run(t)
	}
	if err != nil {
		k.known = nil
		return err
	}
	return nil
}

// remember notes that the tables hold what is wanted.
func (k *Keeper) remember(want []Table) {
	k.known = map[ID]*Table{}
	if k.left == nil {
		k.left = map[ID]map[string]bool{}
	}
	for i := range want {
		id := want[i].ID
		k.known[id] = k.permitted(&want[i])
		if k.left[id] == nil {
			k.left[id] = map[string]bool{}
		}
		for _, c := range want[i].Chains {
			if c.Base == "" {
				k.left[id][c.Name] = true
			}
		}
	}
}

func (k *Keeper) connected() (*Conn, error) {
	if k.conn == nil {
		c, err := Open()
		if err != nil {
			return nil, err
		}
		k.conn = c
		k.port.Store(c.socket.Port)
	}
	return k.conn, nil
}

// forget closes the socket: without waiting, see [Conn.Close].
func (k *Keeper) forget() {
	k.known = nil
	if k.conn != nil {
		go k.conn.Close()
		k.conn = nil
	}
}

func (k *Keeper) log() *slog.Logger {
	if k.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.Log
}

// names are those of the tables, for a log.
func (k *Keeper) names() string {
	var all []string
	for _, id := range k.Keeps {
		all = append(all, id.String())
	}
	return strings.Join(all, ", ")
}

func tableOf(all []Table, id ID) *Table {
	if i := slices.IndexFunc(all, func(t Table) bool { return t.ID == id }); i >= 0 {
		return &all[i]
	}
	return nil
}

// steady calls f again where a transaction was made meanwhile: several dumps are one
// picture only without. On a node whose ruleset never stands still the last picture is
// taken: what is wrong with it is found out when it is repaired, since an element can
// be added twice but not deleted twice.
func (c *Conn) steady(f func() error) error {
	const pictures = 5
	for attempt := 1; ; attempt++ {
		before, err := c.Generation()
		if err != nil {
			return err
		}
		failed := f()
		after, err := c.Generation()
		if err != nil {
			return err
		}
		if before == after || attempt == pictures {
			return failed
		}
	}
}
