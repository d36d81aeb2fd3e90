package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// table is a family's.
func (f family) table() nft.ID {
	return [...]nft.ID{{Family: nft.IPv4, Name: TableName}, {Family: nft.IPv6, Name: TableName}}[f]
}

// tables are the kernel's: an [nft.Keeper].
type tables interface {
	Sync(ctx context.Context, want []nft.Table, deltas ...nft.Delta) (r nft.Result, compared bool, err error)
	Verify(ctx context.Context, want []nft.Table) (nft.Result, error)
	Refused(id nft.ID) map[string]string
	Elements(id nft.ID, s nft.Set, yield func(nft.Element)) error
	Delete(id nft.ID, s nft.Set, elements []nft.Element) error
	Forget()
	Port() uint32
}

// Keeper makes the kernel's tables what a ruleset says, in the network namespace in
// which its first method is called, and forgets the flows and the clients that would go
// to endpoints that are gone. It belongs to one goroutine.
type Keeper struct {
	tables   tables
	forget   forgetFunc
	of       *Ruleset // that the tables are of; nil if that is not known
	verified bool     // once: what is found after that was changed by somebody
}

// NewKeeper returns a keeper that has not done anything.
func NewKeeper(log *slog.Logger) *Keeper { return &Keeper{tables: kept(log), forget: forgetFlows} }

func kept(log *slog.Logger) *nft.Keeper {
	return &nft.Keeper{Keeps: []nft.ID{ipv4.table(), ipv6.table()}, Log: log}
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
// the kernel contradicts, Sync is [Keeper.Verify].
func (k *Keeper) Sync(ctx context.Context, want *Ruleset) (Result, error) {
	if k.of != want {
		return k.Verify(ctx, want)
	}
	d := want.take().since(want)
	r, compared, err := k.tables.Sync(ctx, want.tables(), d.tables...)
	if compared || err != nil {
		return k.compared(want, r, err)
	}
	// There may be nothing to write and yet flows to forget: an endpoint that was
	// not used any more, and now is gone.
	if err = k.expire(want, d); err != nil {
		k.of = nil // what went stale is not known any more; Verify looks at all
	}
	return Result{Elements: r.Elements, Objects: r.Objects, Refused: k.refused(want)}, err
}

// Verify reads the tables, makes good what differs from what is wanted, and
// returns what that was. What is right is not touched, and what the kernel has
// remembered of clients stays. All is done in one transaction.
func (k *Keeper) Verify(ctx context.Context, want *Ruleset) (Result, error) {
	want.take()
	r, err := k.tables.Verify(ctx, want.tables())
	return k.compared(want, r, err)
}

// compared follows a comparison of everything.
func (k *Keeper) compared(want *Ruleset, made nft.Result, err error) (Result, error) {
	r := Result{Elements: made.Elements, Objects: made.Objects, compared: true}
	first := k.of == nil
	if k.of = nil; err != nil {
		return r, err
	}
	if r.Refused = k.refused(want); k.verified {
		r.Found = made.Found // or else nobody has changed it behind our back
	}
	k.verified = true
	err = k.verifyClients(want)
	if first || len(made.Found) > 0 {
		err = errors.Join(err, k.verifyFlows(want))
	}
	if err == nil {
		k.of = want
	}
	return r, err
}

// delta is what differs between two states of a ruleset.
type delta struct {
	tables  []nft.Delta
	stale   []staleFront    // flows of UDP that may have to be forgotten
	clients []staleAffinity // and clients
}

// since compares what may have changed with how it is now.
func (c changes) since(now *Ruleset) (d delta) {
	type place struct {
		family family
		set    setID
	}
	places := map[place]int{} // in d.tables
	note := func(f family, id setID, before, after nft.Element) {
		at, known := places[place{f, id}]
		if !known {
			at = len(d.tables)
			places[place{f, id}] = at
			d.tables = append(d.tables, nft.Delta{Table: f.table(), Set: id.declared(f).Name})
		}
		if before.Key != "" {
			d.tables[at].Deleted = append(d.tables[at].Deleted, before)
		}
		if after.Key != "" {
			d.tables[at].Added = append(d.tables[at].Added, after)
		}
	}
	for e, before := range c.shared {
		switch is := now.shared[e] > 0; {
		case before && !is:
			note(e.family, e.set, e.Element, nft.Element{})
		case is && !before:
			note(e.family, e.set, nft.Element{}, e.Element)
		}
	}
	for f, before := range c.fronts {
		after := now.fronts[f]
		if before == after {
			continue
		}
		before.differ(after, f, func(id setID, was, is nft.Element) { note(familyOf(f.Address), id, was, is) })
		if f.Protocol == UDP && staleFlows(before, after) {
			d.stale = append(d.stale, staleFront{f, after})
		}
		if s, any := staleClients(f, before, after); any {
			d.clients = append(d.clients, s)
		}
	}
	return d
}

// Remove deletes both tables in the caller's network namespace, and returns those
// that were there. Established connections go on as long as another table
// translates addresses, and are cut otherwise.
// Equivalent to: `nft delete table ip flatnet-services; nft delete table ip6 flatnet-services`.
func Remove() (removed []string, err error) {
	k := kept(nil)
	defer k.Close()
	all, err := k.Remove()
	if err != nil {
		return nil, fmt.Errorf("removing nftables tables %s: %w", TableName, err)
	}
	for _, id := range all {
		removed = append(removed, "nftables table "+id.String())
	}
	return removed, nil
}

// Watcher returns what calls changed when somebody else's transaction has touched the
// tables, and when that may have happened unseen; changed must not wait.
func (k *Keeper) Watcher(changed func()) nft.Listener {
	return &nft.Watcher{Tables: []nft.ID{ipv4.table(), ipv6.table()}, Own: k.tables.Port, Changed: changed}
}
