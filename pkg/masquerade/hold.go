package masquerade

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
	conn     *connection
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
	c, err := connect()
	if err != nil {
		return err
	}
	if err := c.hold(); err != nil {
		c.close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			// The other one is also what a table of that name is answered with that somebody
			// else has made, and may remove.
			h.noOwners = errors.Is(err, unix.EINVAL)
			return ErrNoOwners
		}
		return fmt.Errorf("writing nftables table inet %s: %w", holdName, err)
	}
	h.conn = c
	return nil
}

// Held reports whether the hold has its table.
func (h *Hold) Held() bool { return h.conn != nil }

// Release lets the kernel remove the table.
func (h *Hold) Release() {
	if h.conn != nil {
		h.conn.close()
		h.conn = nil
	}
}

func (c *connection) hold() error {
	if err := c.ownTable(holdName); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{
		Table: &nftables.Table{Family: family, Name: holdName}, Name: translating, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 50),
	})
	// The chain keeps translation on, and what is in it connection tracking.
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_RAW}},
		&expr.Masq{},
	}})
	return c.Flush()
}

// ownTable makes a table that nobody else can change, and that ends with the
// socket. The library makes only tables without flags. The error is that of netlink.
func (c *connection) ownTable(name string) error {
	const flagOwner = 2 // NFT_TABLE_F_OWNER
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flagOwner)},
	})
	if err != nil {
		return err
	}
	message := func(kind int, flags netlink.HeaderFlags, data ...byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags}, Data: data}
	}
	begin := []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = c.raw.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, begin...),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Acknowledge, append([]byte{byte(family), 0, 0, 0}, attributes...)...),
		message(unix.NFNL_MSG_BATCH_END, 0, begin...),
	})
	if err != nil {
		return err
	}
	_, err = c.raw.Receive()
	return err
}
