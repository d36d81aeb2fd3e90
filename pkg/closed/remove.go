package closed

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Clear removes the table, when no attachment is left on the node. It stays where an
// address in it shows that somebody whose records are elsewhere still uses it.
func (t *Table) Clear() error {
	closed, err := t.Addresses()
	if err != nil || len(closed) > 0 {
		return err
	}
	_, err = t.Remove()
	return err
}

// Remove removes the table, and with it opens all that is closed. It returns what it
// removed, in words; "" where there was no table.
func (t *Table) Remove() (removed string, err error) {
	c, done, err := t.connect()
	if err != nil {
		return "", err
	}
	defer done()
	return c.RemoveTable(id, func(deletion *nft.Transaction) error { return t.run(c, "delete closed", deletion) })
}

// Rest removes the table where nobody is closed, since each packet that the node sends on
// would pass it for nothing; the next Close makes it again. It does so only as long as
// nobody writes, so that it opens no one who was closed meanwhile. It returns what the
// table has counted (see [Table.Refused]); nil where there is none to remove.
func (t *Table) Rest() (refused map[string]uint64, err error) {
	c, done, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer done()
	err = nft.Steadily(maxAttempts, func() error {
		refused, err = t.rest(c)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("removing nftables table %s, which has nobody in it: %w", id, err)
	}
	return refused, nil
}

func (t *Table) rest(c *nft.Conn) (map[string]uint64, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	closed, err := closedIn(c)
	if err != nil || len(closed) > 0 {
		return nil, err
	}
	refused, err := refusedIn(c)
	if err != nil {
		return nil, err
	}
	removal := &nft.Transaction{Generation: generation}
	removal.DeleteTable(id)
	if err := t.run(c, "rest closed", removal); err != nil {
		return nil, err
	}
	return refused, nil
}
