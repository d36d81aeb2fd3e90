package fastpath

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Monitor raises the generation when something changes that a decision may have come
// from: interfaces, their queues and filters, addresses, neighbours, routes, rules of
// routing, and, as a [nft.Listener], nftables. Rules of iptables-legacy change without a word; what was
// decided under them is in force for a flow's lifetime at most.
type Monitor struct {
	Keeper *Keeper
	// Changed is called where programs may have to be attached; it must not wait.
	Changed func()

	listener   *netlink.Listener
	neighbours map[neighbour]string
}

// neighbour is whose MAC address has been seen.
type neighbour struct {
	link    int32
	address netip.Addr
}

// Open begins to listen, in the caller's network namespace.
func (m *Monitor) Open() (err error) {
	const bufferBytes = 4 << 20
	m.neighbours = map[neighbour]string{}
	m.listener, err = netlink.Listen(unix.NETLINK_ROUTE, bufferBytes,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	return err
}

// Close ends the listening where it was not run.
func (m *Monitor) Close() {
	if m.listener != nil {
		m.listener.Close()
	}
}

// Run raises, and renews what is remembered, until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go m.renew(ctx)
	return m.listener.Run(ctx, func(h *unix.NlMsghdr, message []byte) { m.interpret(h.Type, message) }, func() {
		clear(m.neighbours)
		m.Keeper.Raise()
		m.Keeper.Touched(0)
		m.Changed()
	})
}

// renew is for as long as there is somebody who notices changes.
func (m *Monitor) renew(ctx context.Context) {
	tick := time.NewTicker(RenewedEvery)
	defer tick.Stop()
	for {
		if err := m.Keeper.Renew(); err != nil && m.Keeper.Log != nil {
			m.Keeper.Log.Error("packets take the kernel's path before long", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Monitor) interpret(kind uint16, message []byte) {
	switch kind {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if m.neighbour(message, kind == unix.RTM_DELNEIGH) {
			m.Keeper.Raise()
		}
		return
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(message) < linkHeader || message[0] == unix.AF_BRIDGE {
			return // a port's state
		}
		m.Keeper.Raise()
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		if len(message) < linkHeader {
			return
		}
		m.Keeper.Raise() // somebody's program may decide now
	default:
		m.Keeper.Raise()
		return
	}
	// Both headers have the interface's number at the same place.
	m.Keeper.Touched(int(int32(binary.NativeEndian.Uint32(message[4:]))))
	m.Changed()
}

// neighbour reports whether a notification says that packets to a neighbour go to another
// MAC address. Most say that an entry has been in use.
func (m *Monitor) neighbour(message []byte, deleted bool) bool {
	const header = 12 // struct ndmsg
	if len(message) < header {
		return false
	}
	n := neighbour{link: int32(binary.NativeEndian.Uint32(message[4:]))}
	mac := ""
	for kind, value := range netlink.Attributes(message[header:]) {
		switch kind {
		case unix.NDA_DST:
			n.address, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			mac = string(value)
		}
	}
	if message[0] == unix.AF_BRIDGE {
		return n.address.IsValid() // which node of an overlay has a MAC address; no bridge says that
	}
	before, known := m.neighbours[n]
	if deleted || mac == "" {
		delete(m.neighbours, n)
		return known
	}
	const most = 100_000
	if len(m.neighbours) >= most {
		clear(m.neighbours)
	}
	m.neighbours[n] = mac
	return before != mac
}

// Missed implements [nft.Listener].
func (m *Monitor) Missed() { m.Keeper.Raise() }

// Change implements [nft.Listener].
func (*Monitor) Change(nft.Change) {}

// Commit implements [nft.Listener].
func (m *Monitor) Commit(nft.Commit) { m.Keeper.Raise() }
