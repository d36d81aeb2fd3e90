package masquerade

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Keeper makes the kernel's table what a ruleset says, as an [nft.Keeper] does, and
// sees to the connections that began while the table was not there. The zero value is
// ready for use.
type Keeper struct {
	Log *slog.Logger // of what is repaired; nil for none

	once  sync.Once
	table nft.Keeper
}

// Sync makes the table what is wanted, and returns how many objects and
// elements differed. It goes by what the keeper left in the table, where it knows.
func (k *Keeper) Sync(want Ruleset) (changes int, err error) {
	r, compared, err := k.engine().Sync(context.Background(), want.wanted())
	if compared && err == nil {
		k.compared(r, want)
	}
	return r.Count, err
}

// Verify reads the whole table, makes good what differs from what is wanted,
// and returns how many objects and elements that were. What is right is not
// touched.
func (k *Keeper) Verify(want Ruleset) (repairs int, err error) {
	r, err := k.engine().Verify(context.Background(), want.wanted())
	if err == nil {
		k.compared(r, want)
	}
	return r.Count, err
}

// Remove deletes the table, and reports whether it was there. Established connections stay
// translated if another table, like kube-proxy's, has a rule that translates, and
// are cut otherwise: the kernel tracks connections only while some rule needs it.
// Equivalent to: `nft delete table inet flatnet`.
func (k *Keeper) Remove() (removed bool, err error) {
	all, err := k.engine().Remove()
	if err != nil {
		return false, fmt.Errorf("removing nftables table %s: %w", tableID, err)
	}
	return len(all) > 0, nil
}

// Close lets go of the keeper's socket and of what it knows. The table stays.
// A later call of another method begins anew, in the namespace of its caller.
func (k *Keeper) Close() { k.table.Close() }

func (k *Keeper) engine() *nft.Keeper {
	k.once.Do(func() { k.table.Keeps, k.table.Log = []nft.ID{tableID}, k.Log })
	return &k.table
}

// compared follows a comparison: it says what was found, and sees to it that what began
// without rules that translate, where these were missing or others, is translated.
func (k *Keeper) compared(r nft.Result, want Ruleset) {
	log := k.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if r.Count > 0 {
		log.Info("nftables table written", "table", tableID.String(), "differences", r.Count, "found", strings.Join(r.Found, "; "))
	}
	wrong := func(found string) bool {
		return found == "table is missing" || strings.HasPrefix(found, "chain "+translating+" ")
	}
	if want.empty() || !slices.ContainsFunc(r.Found, wrong) {
		return
	}
	if err := forgetAstray(want); err != nil {
		log.Warn("connections that began without translation are not forgotten", "error", err)
	}
}
