package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed when somebody else's transaction has touched the tables in
// the caller's network namespace, and when it cannot be known whether one has:
// once when it begins to listen, and when notifications were lost. What happens
// while changed runs leads to one more call. Watch returns nil when ctx ends, and
// an error when it cannot listen.
//
// Transactions have no owner that can be relied on: those of a keeper are made by
// a process `nft`, of which others may run too. So they are counted. More that
// touch the tables than the keeper has begun are somebody else's.
// Equivalent to: `nft monitor`.
func Watch(ctx context.Context, k *Keeper, changed func()) error {
	w, err := listen(k)
	if err != nil {
		return err
	}
	return w.run(ctx, changed)
}

// listen begins to count transactions in the caller's network namespace.
func listen(k *Keeper) (*watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	// The first transaction of a large cluster does not fit in any case.
	const bufferBytes = 4 << 20
	_ = conn.SetReadBuffer(bufferBytes)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	w := &watcher{own: k, conn: conn, seen: k.own.Load(), dirty: make(chan struct{}, 1)}
	w.mark()
	return w, nil
}

// run calls changed until ctx ends.
func (w *watcher) run(ctx context.Context, changed func()) error {
	defer w.conn.Close()
	// The receiver is a goroutine of its own so that a changed that takes its
	// time does not let notifications pile up. The end of ctx closes the socket,
	// and that ends the receiver.
	ended := make(chan error, 1)
	go func() { ended <- w.receive() }()
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watching nftables: %w", err)
		case <-w.dirty:
			changed()
		}
	}
}

// watcher counts transactions as they are told: one message for each object, and at
// the end one that says that it ends.
type watcher struct {
	own     *Keeper
	conn    *netlink.Conn
	seen    int64 // transactions that touched the tables
	touched bool  // the one that is being told does
	dirty   chan struct{}
}

// mark has changed called.
func (w *watcher) mark() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func (w *watcher) receive() error {
	for {
		messages, err := w.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// Those of the keeper may have been lost, or be still to come, and
			// would then be taken for somebody else's. Better so than the
			// other way round.
			w.touched, w.seen = false, w.own.own.Load()
			w.mark()
			continue
		case err != nil:
			return err
		}
		for _, m := range messages {
			w.see(m)
		}
	}
}

func (w *watcher) see(m netlink.Message) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return
	}
	if m.Header.Type&0xff != unix.NFT_MSG_NEWGEN {
		w.touched = w.touched || aboutTable(m.Data)
		return
	}
	if !w.touched {
		return
	}
	w.touched = false
	if w.seen++; w.seen > w.own.own.Load() {
		w.own.own.Add(1)
		w.mark()
	}
}

// aboutTable reports whether a message is about one of the tables. The name is
// the attribute of number 1 in all of them, and the first.
func aboutTable(data []byte) bool {
	for kind, value := range eachAttribute(data[4:]) {
		if kind == unix.NFTA_TABLE_NAME {
			return unix.ByteSliceToString(value) == TableName
		}
	}
	return false
}
