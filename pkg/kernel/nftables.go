package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NftablesListener is told what becomes of nftables, one call at a time. A call
// must not wait: while it runs, notifications pile up.
type NftablesListener interface {
	// Change is an object that a transaction made, changed or deleted.
	Change(NftablesChange)
	// Commit ends a transaction, whose changes were told before.
	Commit(NftablesCommit)
	// Missed says that anything may have happened: at the beginning, since
	// nobody was listening before, and when notifications were lost. The
	// transaction that was being told is not told to its end.
	Missed()
}

// NftablesChange is an object as a notification tells of it. It is valid until the
// call ends.
type NftablesChange struct {
	Message    uint16 // NFT_MSG_NEWTABLE, NFT_MSG_DELRULE, …
	Family     uint8  // NFPROTO_IPV4, …
	attributes []byte
}

// NftablesCommit says whose transaction it was.
type NftablesCommit struct {
	Generation uint32 // of the ruleset; every transaction in the namespace increases it
	Port       uint32 // of the netlink socket
	Process    string // name of the thread (comm), 15 bytes at most
}

// NftablesMonitor tells of transactions.
// Equivalent to: `nft monitor`.
type NftablesMonitor struct {
	conn      *netlink.Conn
	listeners []NftablesListener
}

// NewNftablesMonitor opens a monitor in the caller's network namespace. What happens
// from then on is told by [NftablesMonitor.Run].
func NewNftablesMonitor(listeners ...NftablesListener) (*NftablesMonitor, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	// kube-proxy's transactions are large, and they come here too. The kernel
	// gives what it allows; what does not fit is missed, and that is told.
	const bufferBytes = 4 << 20
	_ = conn.SetReadBuffer(bufferBytes)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	return &NftablesMonitor{conn, listeners}, nil
}

// Run tells the listeners what happens until ctx ends; then it returns nil and the
// monitor is closed.
func (m *NftablesMonitor) Run(ctx context.Context) error {
	defer m.conn.Close()
	stop := context.AfterFunc(ctx, func() { m.conn.Close() })
	defer stop()
	m.missed()
	for {
		messages, err := m.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			m.missed()
			continue
		case err != nil:
			return fmt.Errorf("watching nftables: %w", err)
		}
		for _, message := range messages {
			m.tell(message)
		}
	}
}

func (m *NftablesMonitor) missed() {
	for _, l := range m.listeners {
		l.Missed()
	}
}

func (m *NftablesMonitor) tell(message netlink.Message) {
	const header = 4 // struct nfgenmsg
	if message.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(message.Data) < header {
		return
	}
	change := NftablesChange{
		Message: uint16(message.Header.Type & 0xff), Family: message.Data[0], attributes: message.Data[header:],
	}
	if change.Message != unix.NFT_MSG_NEWGEN {
		for _, l := range m.listeners {
			l.Change(change)
		}
		return
	}
	commit := NftablesCommit{Port: message.Header.PID}
	if generation := change.Attribute(unix.NFTA_GEN_ID); len(generation) == 4 {
		commit.Generation = binary.BigEndian.Uint32(generation)
	}
	commit.Process = unix.ByteSliceToString(change.Attribute(unix.NFTA_GEN_PROC_NAME))
	for _, l := range m.listeners {
		l.Commit(commit)
	}
}

// InTable reports whether the object is a table of this name, or is in one.
func (c NftablesChange) InTable(name string) bool {
	// The attribute has the same number in all messages (NFTA_CHAIN_TABLE, …).
	table := c.Attribute(unix.NFTA_TABLE_NAME)
	return len(table) == len(name)+1 && string(table[:len(name)]) == name
}

// Attribute returns the value of an attribute, NFTA_…; nil if there is none.
func (c NftablesChange) Attribute(kind uint16) []byte {
	for k, value := range NetlinkAttributes(c.attributes) {
		if k == kind {
			return value
		}
	}
	return nil
}

// NetlinkAttributes goes through the attributes of a netlink message, or those
// inside of one, up to one that cannot be.
func NetlinkAttributes(raw []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(kind uint16, value []byte) bool) {
		const (
			header   = 4      // struct nlattr
			typeMask = 0x3fff // NLA_TYPE_MASK
		)
		for len(raw) >= header {
			length := int(binary.NativeEndian.Uint16(raw))
			if length < header || length > len(raw) || !yield(binary.NativeEndian.Uint16(raw[2:])&typeMask, raw[header:length]) {
				return
			}
			raw = raw[min(align(length), len(raw)):]
		}
	}
}
