package masquerade

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// Keeper makes the kernel's table what a ruleset says. It works in the network
// namespace in which its first method is called: it keeps a socket there, since
// to close one that deleted something holds up every other transaction of the
// node for tens of milliseconds. Its methods may be called at the same time.
// The zero value is ready for use.
type Keeper struct {
	Log *slog.Logger // of what is repaired; nil for none

	mu    sync.Mutex
	conn  *connection
	port  atomic.Uint32 // the socket's
	known *content      // what the table holds, as far as the keeper knows; nil if it does not
}

// Sync makes the table what is wanted, and returns how many objects and
// elements differed. It goes by what the keeper left in the table: only what
// differs is written, in one transaction, and nothing is read. Where the
// keeper does not know, or the kernel contradicts, Sync is [Keeper.Verify].
func (k *Keeper) Sync(want Ruleset) (changes int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		return k.verify(want.content)
	}
	// A table that is not there and one without content are the same wish.
	have := k.known
	if have.empty() {
		have = nil
	}
	r := compare(have, want.content)
	if r.count == 0 {
		return 0, nil
	}
	if err := k.apply(r, have != nil, want.content); err != nil {
		k.log().Warn("nftables table is not as it was left, comparing all of it", "table", "inet "+tableName, "error", err)
		return k.verify(want.content)
	}
	return r.count, nil
}

// Verify reads the whole table, makes good what differs from what is wanted,
// and returns how many objects and elements that were. What is right is not
// touched. All is done in one transaction.
func (k *Keeper) Verify(want Ruleset) (repairs int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.verify(want.content)
}

// verify tries again with a new picture, and then with a new table, because
// others may write between reading and writing.
func (k *Keeper) verify(want content) (repairs int, err error) {
	for attempt := range 3 {
		var have *content
		have, err = k.read()
		if err != nil {
			continue
		}
		r := compare(have, want)
		repairs = max(repairs, r.count)
		if r.count == 0 {
			k.known = &want
			return repairs, nil
		}
		r.remake = r.remake || attempt > 0
		if err = k.apply(r, have != nil, want); err != nil {
			k.log().Warn("nftables refused a repair, trying again", "table", "inet "+tableName, "found", strings.Join(r.found, "; "), "error", err)
			continue
		}
		k.log().Info("nftables table written", "table", "inet "+tableName, "differences", r.count, "found", strings.Join(r.found, "; "))
		if r.translatesAnew(want) {
			if err := forgetAstray(want); err != nil {
				k.log().Warn("connections that began without translation are not forgotten", "error", err)
			}
		}
		return repairs, nil
	}
	return 0, err
}

// Remove deletes the table, and reports whether it was there. Established connections stay
// translated if another table, like kube-proxy's, has a rule that translates, and
// are cut otherwise: the kernel tracks connections only while some rule needs it.
// Equivalent to: `nft delete table inet flatnet`.
func (k *Keeper) Remove() (removed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	differences, err := k.verify(content{})
	if err != nil {
		return false, fmt.Errorf("removing nftables table inet %s: %w", tableName, err)
	}
	return differences > 0, nil
}

// Close lets go of the keeper's socket and of what it knows. The table stays.
// A later call of another method begins anew, in the namespace of its caller.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
}

func (k *Keeper) read() (*content, error) {
	c, err := k.connected()
	if err != nil {
		return nil, err
	}
	found, err := c.read()
	if err != nil {
		k.forget()
	}
	return found, err
}

func (k *Keeper) apply(r repair, exists bool, want content) error {
	c, err := k.connected()
	if err != nil {
		return err
	}
	if err := c.apply(r, exists, want); err != nil {
		k.forget()
		return err
	}
	k.known = &want
	return nil
}

func (k *Keeper) connected() (*connection, error) {
	if k.conn == nil {
		c, err := connect()
		if err != nil {
			return nil, err
		}
		k.conn = c
		k.port.Store(c.port)
	}
	return k.conn, nil
}

// forget follows an error: answers of the failed transaction may still be
// waiting in the socket.
func (k *Keeper) forget() {
	k.known = nil
	if k.conn != nil {
		k.conn.close()
		k.conn = nil
	}
}

func (k *Keeper) log() *slog.Logger {
	if k.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return k.Log
}
