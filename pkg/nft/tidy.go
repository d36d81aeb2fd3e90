package nft

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Tidy removes chains that nothing needs any more. [Keeper.Sync] only empties them: before
// Linux 6.2 a chain cannot go in the transaction in which what led to it goes. It returns
// how many stay nevertheless; the next comparison tries again.
func (k *Keeper) Tidy() (left int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connected()
	if err != nil {
		return 0, err
	}
	return k.tidy(c), nil
}

// leave notes chains that nothing needs any more, and returns how many there are.
func (k *Keeper) leave(unused map[ID][]string) (all int) {
	if k.unused == nil {
		k.unused = map[ID][]string{}
	}
	for _, id := range k.Keeps {
		names := slices.Concat(k.unused[id], unused[id])
		k.unused[id] = slices.DeleteFunc(names, func(name string) bool {
			if k.known[id] == nil {
				return true // they went with the table
			}
			_, wanted := k.known[id].chain(name)
			return wanted
		})
		all += len(k.unused[id])
	}
	return all
}

// tidy is Tidy. All at once is tried first, then each: what led to one may take a while to
// let go of it. Those that lead to others have to go first.
func (k *Keeper) tidy(c *Conn) (left int) {
	for id, names := range k.unused {
		if len(names) > 1 && k.removeChains(c, id, names...) {
			names = nil
		}
		for before := -1; len(names) > 0 && len(names) != before; {
			before = len(names)
			names = slices.DeleteFunc(names, func(name string) bool { return k.removeChains(c, id, name) })
		}
		if len(names) > 0 {
			k.log().Debug("chains that are no longer needed stay for now", "table", id.String(), "chains", names)
		}
		k.unused[id] = names
		left += len(names)
	}
	return left
}

// removeChains reports whether it has removed chains, or the only one was gone already.
// That they are still in use says nothing against what the keeper knows.
func (k *Keeper) removeChains(c *Conn, id ID, names ...string) bool {
	t := &Transaction{}
	for _, name := range names {
		t.FlushChain(id, name)
	}
	for _, name := range names {
		t.DeleteChain(id, name)
	}
	var err error
	if k.Step != nil {
		err = k.Step("nft write " + k.names())
	}
	if err == nil {
		err = c.Run(t)
	}
	if err != nil && (len(names) > 1 || !errors.Is(err, unix.ENOENT)) {
		return false
	}
	for _, name := range names {
		delete(k.left[id], name)
	}
	return true
}
