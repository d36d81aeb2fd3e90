package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Keeper makes the kernel's tables what a ruleset says. It runs `nft`, in the
// network namespace of the calling thread, to write, and reads by netlink, which
// takes a tenth of the time and memory. It belongs to one goroutine.
type Keeper struct {
	Log *slog.Logger // of what is repaired; nil for none

	nft    knftables.Interface
	renew  func() (knftables.Interface, error)
	reader reader
	writer nativeWriter
	forget forgetFunc

	known    *known
	verified bool                            // once: what is found after that was changed by somebody
	rules    map[tableName][sha256.Size]byte // of chains, as the kernel tells what was written
	stamps   *stamps                         // of its transactions; see [Watcher]
	refusals refusals                        // as of the last [Keeper.Verify]
}

// reader reads what is in the kernel.
type reader interface {
	read(f family) (found, error)
	elements(f family, id setID, yield func(foundElement)) error
}

// nativeWriter writes what nft cannot.
type nativeWriter interface {
	writeRules(rules []nativeRule, stamp uint32) error
	deleteElements(f family, id setID, keys [][]byte, stamp uint32) error
}

// tableName is something's name in one of the tables.
type tableName struct {
	family family
	name   string
}

// known is what the tables hold, as far as the keeper knows.
type known struct {
	of       *Ruleset
	families []family
	fronts   map[Front]*Target
	shared   map[element]struct{}
	chains   map[tableChain]struct{}
}

// NewKeeper finds nft, 1.0.1 or later, and tries whether it works.
func NewKeeper(log *slog.Logger) (*Keeper, error) {
	renew := func() (knftables.Interface, error) { return knftables.New("", "") }
	nft, err := renew()
	if err != nil {
		return nil, fmt.Errorf("running nft, which writes the rules of Services: %w", err)
	}
	return &Keeper{Log: log, nft: nft, renew: renew, reader: tables{}, writer: native{}, forget: forgetFlows, stamps: newStamps()}, nil
}

// Result says what a sync did.
type Result struct {
	// Elements were added or deleted, Objects (chains, tables) written.
	Elements, Objects int
	// Found says what was not as the keeper had left it; empty if it was.
	Found []string
	// Refused says what Services have to do without.
	Refused  []Refused
	compared bool // all of it
}

// Sync makes the tables what is wanted, going by what the keeper left there: only
// what differs is written, in one transaction. Where the keeper does not know, or
// nft refuses, Sync is [Keeper.Verify].
func (k *Keeper) Sync(ctx context.Context, want *Ruleset) (Result, error) {
	changed := want.take()
	if k.known == nil || k.known.of != want || !slices.Equal(k.known.families, want.families()) {
		return k.Verify(ctx, want)
	}
	tx := k.begin()
	for c := range changed.chains {
		if _, have := k.known.chains[c]; !have && want.chains[c] > 0 {
			tx.declareChain(c.family, chain{name: c.name()})
		}
	}
	for _, c := range sortedTableChains(changed.chains) {
		if _, have := k.known.chains[c]; !have && want.chains[c] > 0 {
			tx.writeRules(c.family, k.refusals.permitted(c.family, c.chain(c.family)))
		}
	}
	d := k.difference(want, changed)
	for _, e := range d.deleted {
		tx.deleteElement(e.family(), e)
	}
	for _, e := range d.added {
		tx.addElement(e.family(), e)
	}
	if changed.node {
		for _, f := range k.known.families {
			tx.replaceConstant(f, want.node)
		}
	}
	// There may be nothing to write and yet flows to forget: an endpoint that was
	// not used any more, and now is gone.
	if err := k.run(ctx, tx); err != nil {
		if ctx.Err() != nil {
			k.known = nil
			return Result{}, ctx.Err()
		}
		k.log().Warn("tables of Services are not as they were left, comparing all of them", "table", TableName, "error", oneLine(err))
		return k.Verify(ctx, want)
	}
	k.note(want, changed)
	err := k.expire(want, d)
	if err != nil {
		// What went stale is not known any more. Verify looks at all.
		k.known = nil
	}
	return Result{Elements: tx.elements, Objects: tx.objects, Refused: k.refused(want)}, err
}

// delta is what differs between two rulesets.
type delta struct {
	deleted, added []element
	stale          []staleFront    // flows of UDP that may have to be forgotten
	clients        []staleAffinity // and clients
}

// difference compares what may have changed with what the keeper knows.
func (k *Keeper) difference(want *Ruleset, changed changes) delta {
	var d delta
	for e := range changed.shared {
		_, have := k.known.shared[e]
		switch wanted := want.shared[e] > 0; {
		case have && !wanted:
			d.deleted = append(d.deleted, e)
		case wanted && !have:
			d.added = append(d.added, e)
		}
	}
	for f := range changed.fronts {
		d.compare(f, k.known.fronts[f], want.fronts[f])
	}
	return d
}

// compare adds what differs between two targets of a front, either of which may
// be nil.
func (d *delta) compare(f Front, before, after *Target) {
	if before == after {
		return
	}
	have := map[setKey]element{}
	if before != nil {
		before.verdicts(f, func(e element) { have[setKey{e.set, e.key}] = e })
	}
	if after != nil {
		after.verdicts(f, func(e element) {
			at := setKey{e.set, e.key}
			if old, same := have[at]; same && old == e {
				delete(have, at)
				return
			}
			d.added = append(d.added, e)
		})
	}
	for _, e := range have {
		d.deleted = append(d.deleted, e)
	}
	before.differ(after, f, func(was, is element) {
		if was.value.at.IsValid() {
			d.deleted = append(d.deleted, was)
		}
		if is.value.at.IsValid() {
			d.added = append(d.added, is)
		}
	})
	if f.Protocol == UDP && staleFlows(before, after) {
		d.stale = append(d.stale, staleFront{f, after})
	}
	if s, any := staleClients(f, before, after); any {
		d.clients = append(d.clients, s)
	}
}

// note remembers that the tables hold what was changed.
func (k *Keeper) note(want *Ruleset, changed changes) {
	for e := range changed.shared {
		if want.shared[e] > 0 {
			k.known.shared[e] = struct{}{}
		} else {
			delete(k.known.shared, e)
		}
	}
	for c := range changed.chains {
		if want.chains[c] > 0 {
			k.known.chains[c] = struct{}{}
		}
		// One that is no longer needed stays until the tables are verified:
		// before Linux 6.2 a chain cannot go together with the last element
		// that leads to it.
	}
	for f := range changed.fronts {
		if t := want.fronts[f]; t != nil {
			k.known.fronts[f] = t
		} else {
			delete(k.known.fronts, f)
		}
	}
}

// noteAll remembers that the tables hold all that is wanted.
func (k *Keeper) noteAll(want *Ruleset) {
	n := &known{
		of: want, families: want.families(), fronts: maps.Clone(want.fronts),
		shared: make(map[element]struct{}, len(want.shared)), chains: make(map[tableChain]struct{}, len(want.chains)),
	}
	for e := range want.shared {
		n.shared[e] = struct{}{}
	}
	for c := range want.chains {
		n.chains[c] = struct{}{}
	}
	k.known = n
}

func (k *Keeper) begin() *transaction {
	return &transaction{Transaction: k.nft.NewTransaction(), native: k.writer != nil}
}

// run runs a transaction, and writes the rules that nft cannot.
func (k *Keeper) run(ctx context.Context, tx *transaction) error {
	if tx.empty() {
		return nil
	}
	if k.stamps != nil {
		tx.stamp(k.stamps)
	}
	if err := k.nft.Run(ctx, tx.Transaction); err != nil {
		return err
	}
	k.release(tx)
	if len(tx.pending) == 0 {
		return nil
	}
	if err := k.writer.writeRules(tx.pending, k.stamps.issue()); err != nil {
		return fmt.Errorf("adding rules that remember clients: %w", err)
	}
	return nil
}

// release lets go of the text of a large transaction, which knftables keeps for
// the next one.
func (k *Keeper) release(tx *transaction) {
	if tx.elements < 2*piece || k.renew == nil {
		return
	}
	if nft, err := k.renew(); err == nil {
		k.nft = nft
	}
}

func (k *Keeper) log() *slog.Logger {
	if k.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.Log
}

// oneLine keeps a log readable: nft explains a failure on many lines.
func oneLine(err error) string {
	var exit *exec.ExitError
	text := err.Error()
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		text = string(exit.Stderr)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// replaceConstant writes the sets that only the node decides.
func (t *transaction) replaceConstant(f family, n Node) {
	for _, id := range []setID{setOwn, setServiceCIDRs} {
		t.flushSet(f, id)
	}
	n.constant(f, func(e element) { t.addElement(f, e) })
}

func sortedTableChains[T any](m map[tableChain]T) []tableChain {
	all := slices.Collect(maps.Keys(m))
	slices.SortFunc(all, func(a, b tableChain) int {
		if a.family != b.family {
			return int(a.family) - int(b.family)
		}
		return a.compare(b.chainRef)
	})
	return all
}
