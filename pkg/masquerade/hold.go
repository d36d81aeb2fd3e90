package masquerade

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Hold keeps the kernel translating the connections that it translates, whatever
// becomes of the rules that told it to.
//
// A connection's translation is kept with its connection tracking entry, but is
// applied only while something in the namespace needs connection tracking and
// something translates. When somebody flushes the ruleset (`nft flush ruleset`, a
// restart of nftables.service or of firewalld), both may end with the last rule:
// packets of established connections then leave with the pod's address, and who
// gets one answers with a reset. Rules that are back a moment later are too late.
//
//	table inet flatnet-hold {
//	    flags owner                                        # nobody else can remove it
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat + 50;
//	        meta l4proto 255 masquerade                    # no packet has it
//	    }
//	}
//
// The table has an owner: it lives as long as the hold's socket, and only through
// that can it be changed. So it needs no repair and no removal, and a process that
// is killed leaves nothing. Tables have owners from Linux 5.12 on.
//
// The zero value is ready for use. Its methods are not to be called at the same
// time.
type Hold struct {
	conn     *nft.Conn
	noOwners bool // the kernel said so, and need not be asked again
}

// ErrNoOwners says that the kernel has no tables with an owner, so that
// established connections that are translated may be cut when somebody flushes
// the ruleset.
var ErrNoOwners = errors.New("nftables has no tables with an owner (Linux 5.12)")

const holdName = "flatnet-hold"

// Take makes the table in the network namespace of its caller; where the hold has
// it, it does nothing. It fails with [ErrNoOwners] where there can be none.
// Equivalent to: `nft -i` with the text above, for as long as it runs.
func (h *Hold) Take() error {
	switch {
	case h.conn != nil:
		return nil
	case h.noOwners:
		return ErrNoOwners
	}
	c, err := nft.Open()
	if err != nil {
		return err
	}
	if err := c.Run(hold()); err != nil {
		c.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			// The other one is also what a table of that name is answered with that somebody
			// else has made, and may remove.
			h.noOwners = errors.Is(err, unix.EINVAL)
			return ErrNoOwners
		}
		return err
	}
	h.conn = c
	return nil
}

// Held reports whether the hold has its table.
func (h *Hold) Held() bool { return h.conn != nil }

// Release lets the kernel remove the table.
func (h *Hold) Release() {
	if h.conn != nil {
		go h.conn.Close() // which may wait
		h.conn = nil
	}
}

// hold is the table's making.
func hold() *nft.Transaction {
	id := nft.ID{Family: nft.INet, Name: holdName}
	// The chain keeps translation on, and what is in it connection tracking.
	chain := nft.Chain{Name: translating, Base: "type nat hook postrouting priority srcnat + 50; policy accept;"}
	t := &nft.Transaction{}
	t.AddOwnedTable(id)
	t.AddChain(id, chain)
	t.AddRules(id, chain.Name, []string{"meta l4proto 255 masquerade"})
	return t
}
