package nft

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Listener is told what becomes of nftables, one call at a time. A call
// must not wait: while it runs, notifications pile up.
type Listener interface {
	// Change is an object that a transaction made, changed or deleted.
	Change(Change)
	// Commit ends a transaction, whose changes were told before.
	Commit(Commit)
	// Missed says that anything may have happened: at the beginning, since
	// nobody was listening before, and when notifications were lost. The
	// transaction that was being told is not told to its end.
	Missed()
}

// Change is an object as a notification tells of it. It is valid until the
// call ends.
type Change struct {
	Message    uint16 // NFT_MSG_NEWTABLE, NFT_MSG_DELRULE, …
	Family     uint8  // NFPROTO_IPV4, …
	attributes []byte
}

// Commit says whose transaction it was.
type Commit struct {
	Generation uint32 // of the ruleset; every transaction in the namespace increases it
	Port       uint32 // of the netlink socket
	Process    string // name of the thread (comm), 15 bytes at most
}

// Monitor tells of transactions.
// Equivalent to: `nft monitor`.
type Monitor struct {
	listener  *netlink.Listener
	listeners []Listener
}

// NewMonitor opens a monitor in the caller's network namespace. What happens
// from then on is told by [Monitor.Run].
func NewMonitor(listeners ...Listener) (*Monitor, error) {
	// kube-proxy's transactions are large, and they come here too. The kernel
	// gives what it allows; what does not fit is missed, and that is told.
	return newMonitor(4<<20, listeners...)
}

func newMonitor(bufferBytes int, listeners ...Listener) (*Monitor, error) {
	listener, err := netlink.Listen(unix.NETLINK_NETFILTER, bufferBytes, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	return &Monitor{listener, listeners}, nil
}

// Run tells the listeners what happens until ctx ends; then it returns nil and the
// monitor is closed.
func (m *Monitor) Run(ctx context.Context) error {
	m.missed()
	if err := m.listener.Run(ctx, m.tell, m.missed); err != nil {
		return fmt.Errorf("watching nftables: %w", err)
	}
	return nil
}

func (m *Monitor) missed() {
	for _, l := range m.listeners {
		l.Missed()
	}
}

func (m *Monitor) tell(h *unix.NlMsghdr, payload []byte) {
	if h.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(payload) < generic {
		return
	}
	change := Change{Message: h.Type & 0xff, Family: payload[0], attributes: payload[generic:]}
	if change.Message != unix.NFT_MSG_NEWGEN {
		for _, l := range m.listeners {
			l.Change(change)
		}
		return
	}
	commit := Commit{Port: h.Pid}
	if generation := change.Attribute(unix.NFTA_GEN_ID); len(generation) == 4 {
		commit.Generation = binary.BigEndian.Uint32(generation)
	}
	commit.Process = unix.ByteSliceToString(change.Attribute(unix.NFTA_GEN_PROC_NAME))
	for _, l := range m.listeners {
		l.Commit(commit)
	}
}

// InTable reports whether the object is a table of this name, or is in one.
func (c Change) InTable(name string) bool {
	// The attribute has the same number in all messages (NFTA_CHAIN_TABLE, …).
	table := c.Attribute(unix.NFTA_TABLE_NAME)
	return len(table) == len(name)+1 && string(table[:len(name)]) == name
}

// Attribute returns the value of an attribute, NFTA_…; nil if there is none.
func (c Change) Attribute(kind uint16) []byte {
	for k, value := range netlink.Attributes(c.attributes) {
		if k == kind {
			return value
		}
	}
	return nil
}
