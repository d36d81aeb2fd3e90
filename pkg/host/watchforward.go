package host

import (
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// ForwardWatcher calls Changed when a base chain of hook forward was made or
// changed, its policy for example, when a rule was removed from a chain named
// FORWARD, and when that may have happened unseen: docker does both when it
// starts. It sees what is done through nftables, which the common variant of
// iptables is too, and nothing of the legacy variant. It is a
// [nft.Listener].
type ForwardWatcher struct {
	Changed func() // must not wait
	touched bool   // by the transaction that is being told
}

// Missed implements [nft.Listener].
func (w *ForwardWatcher) Missed() {
	w.touched = false
	w.Changed()
}

// Change implements [nft.Listener].
func (w *ForwardWatcher) Change(c nft.Change) {
	w.touched = w.touched || concernsForward(c)
}

// Commit implements [nft.Listener].
func (w *ForwardWatcher) Commit(nft.Commit) {
	if w.touched {
		w.Changed()
	}
	w.touched = false
}

func concernsForward(c nft.Change) bool {
	switch c.Message {
	case unix.NFT_MSG_DELRULE:
		return unix.ByteSliceToString(c.Attribute(unix.NFTA_RULE_CHAIN)) == "FORWARD"
	case unix.NFT_MSG_NEWCHAIN:
		for kind, value := range netlink.Attributes(c.Attribute(unix.NFTA_CHAIN_HOOK)) {
			if kind == unix.NFTA_HOOK_HOOKNUM {
				return len(value) == 4 && value[3] == unix.NF_INET_FORWARD // in network byte order
			}
		}
	}
	return false
}
