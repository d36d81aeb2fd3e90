package masquerade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed when somebody else's transaction has touched a table that
// is named flatnet, the agent's or the plugin's, in the caller's network namespace.
// It does so once more as soon as it is listening, since nobody knows what was
// before, and when notifications were lost. What happens while changed
// runs leads to one more call. Watch returns nil when ctx ends, and an error
// when it cannot listen.
//
// The caller's own transactions are no reason. Those of the given keepers are
// recognised exactly, by their socket. What else the process writes is
// recognised by its name (comm), because the number that the kernel tells is
// a thread's in the machine's first PID namespace, which a container cannot
// compare with its own. So another process of the same name goes unnoticed in
// the plugin's tables, and without keepers in all of them.
// Equivalent to: `nft monitor`.
func Watch(ctx context.Context, changed func(), keepers ...*Keeper) error {
	w, conn, err := listen(keepers)
	if err != nil {
		return fmt.Errorf("watching nftables: %w", err)
	}
	defer conn.Close()
	w.mark()

	// The receiver is a goroutine of its own so that a changed that takes its
	// time does not let notifications pile up. The end of ctx closes the socket,
	// and that ends the receiver.
	ended := make(chan error, 1)
	go func() { ended <- w.receive(conn) }()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
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

// watcher sees transactions as they are told: one message for each object, and
// at the end one that says who it was.
type watcher struct {
	keepers []*Keeper
	name    string // of this process
	dirty   chan struct{}
	touched touched // by the transaction that is being told
}

// touched are the tables that a transaction changed.
type touched struct{ agents, plugins bool }

func listen(keepers []*Keeper) (*watcher, *netlink.Conn, error) {
	name, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		return nil, nil, fmt.Errorf("reading the process's name: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, nil, err
	}
	// kube-proxy's transactions are large, and they come here too.
	_ = conn.SetReadBuffer(bufferBytes)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, nil, err
	}
	w := &watcher{keepers: keepers, name: strings.TrimSuffix(string(name), "\n"), dirty: make(chan struct{}, 1)}
	return w, conn, nil
}

// mark has changed called.
func (w *watcher) mark() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func (w *watcher) receive(conn *netlink.Conn) error {
	for {
		messages, err := conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.touched = touched{}
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
	if g, ok := generationFrom(m); ok {
		if w.touched != (touched{}) && !w.own(m.Header.PID, g) {
			w.mark()
		}
		w.touched = touched{}
		return
	}
	if tableOf(m) != tableName {
		return
	}
	switch nftables.TableFamily(m.Data[0]) {
	case nftables.TableFamilyINet:
		w.touched.agents = true
	default:
		w.touched.plugins = true
	}
}

// own reports whether the transaction that ends is this process's.
func (w *watcher) own(port uint32, g generation) bool {
	if slices.ContainsFunc(w.keepers, func(k *Keeper) bool { return k.port.Load() == port }) {
		return true
	}
	if w.touched.agents && len(w.keepers) > 0 {
		return false
	}
	return g.process == w.name
}

// generation is what the kernel says at the end of a transaction.
type generation struct {
	number  uint32
	process string // the name of the thread that sent it
}

func generationFrom(m netlink.Message) (g generation, ok bool) {
	if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(m.Data) < 4 {
		return g, false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return g, false
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_GEN_ID:
			g.number = attributes.Uint32()
		case unix.NFTA_GEN_PROC_NAME:
			g.process = attributes.String()
		}
	}
	return g, attributes.Err() == nil
}

// tableOf returns the name of the table that a message is about. It is the
// attribute of number 1 in all of them (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, …),
// and elements, of which there may be thousands, are not looked at.
func tableOf(m netlink.Message) string {
	attributes, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return ""
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_TABLE_NAME {
			return attributes.String()
		}
	}
	return ""
}
