package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// tables looks at a namespace's nftables from outside of whoever writes them.
type tables struct{ space *netlab.Namespace }

func (t tables) dial() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.space.FD()})
	if err != nil {
		return nil, fmt.Errorf("asking for nftables: %w", err)
	}
	const bufferBytes = 32 << 20
	if err := conn.SetReadBuffer(bufferBytes); err != nil {
		conn.Close()
		return nil, fmt.Errorf("making room for answers about nftables: %w", err)
	}
	return conn, nil
}

// count returns how many rules, or chains, there are in all tables.
// Equivalent to: `nft list ruleset`, and counting.
func (t tables) count(get uint16) (int, error) {
	conn, err := t.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	all, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | get), Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, fmt.Errorf("listing nftables: %w", err)
	}
	return len(all), nil
}

// empty removes all tables. Equivalent to: `nft flush ruleset`.
func (t tables) empty() error {
	_, err := t.space.Output("nft", "flush", "ruleset")
	return err
}

// changes tells what transactions write. Equivalent to: `nft monitor`.
type changes struct{ conn *netlink.Conn }

func (t tables) changes() (*changes, error) {
	conn, err := t.dial()
	if err != nil {
		return nil, err
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	return &changes{conn}, nil
}

func (c *changes) close() error { return c.conn.Close() }

// forget leaves out what has been told so far.
func (c *changes) forget() error {
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
		_, err := c.conn.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("watching nftables: %w", err)
		}
	}
}

// await waits until a transaction has written an address, in an element or a rule:
// the kernel tells of it when it is in force.
func (c *changes) await(a netip.Addr, patience time.Duration) (time.Time, error) {
	text := a.AsSlice()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return time.Time{}, err
	}
	for {
		messages, err := c.conn.Receive()
		now := time.Now()
		if err != nil {
			return now, fmt.Errorf("waiting until nftables have %s: %w", a, err)
		}
		for _, m := range messages {
			switch m.Header.Type & 0xff {
			case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_NEWRULE:
				if bytes.Contains(m.Data, text) {
					return now, nil
				}
			}
		}
	}
}
