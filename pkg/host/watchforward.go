package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// WatchForward calls changed, on its own goroutine, when a base chain of hook
// forward was made or changed, its policy for example, and when a rule was
// removed from a chain named FORWARD: docker does both when it starts. It sees
// what is done through nftables, which the common variant of iptables is too,
// and nothing of the legacy variant. WatchForward returns nil when ctx ends,
// and an error when it cannot listen.
// Equivalent to: `nft monitor chains rules`.
func WatchForward(ctx context.Context, changed func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watching FORWARD chains: %w", err)
	}
	defer conn.Close()
	// kube-proxy's transactions are large, and they come here too.
	_ = conn.SetReadBuffer(4 << 20)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watching FORWARD chains: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed()
			continue
		case err != nil:
			return fmt.Errorf("watching FORWARD chains: %w", err)
		}
		for _, m := range messages {
			if concernsForward(m) {
				changed()
			}
		}
	}
}

// concernsForward reports whether a message of nftables is one that
// [WatchForward] waits for.
func concernsForward(m netlink.Message) bool {
	const family = unix.NFNL_SUBSYS_NFTABLES << 8
	const headerSize = 4 // struct nfgenmsg
	if len(m.Data) < headerSize {
		return false
	}
	switch m.Header.Type {
	case family | unix.NFT_MSG_NEWCHAIN, family | unix.NFT_MSG_DELRULE:
	default:
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
	if err != nil {
		return false
	}
	found := false
	for attributes.Next() {
		switch {
		case m.Header.Type == family|unix.NFT_MSG_DELRULE:
			found = found || attributes.Type() == unix.NFTA_RULE_CHAIN && attributes.String() == "FORWARD"
		case attributes.Type() == unix.NFTA_CHAIN_HOOK:
			attributes.Nested(func(hook *netlink.AttributeDecoder) error {
				for hook.Next() {
					if hook.Type() == unix.NFTA_HOOK_HOOKNUM {
						raw := hook.Bytes() // in network byte order
						found = len(raw) == 4 && raw[3] == unix.NF_INET_FORWARD
					}
				}
				return nil
			})
		}
	}
	return found
}
