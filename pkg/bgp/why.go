package bgp

import (
	"fmt"
	"strings"
)

// Why says in words why a session is not established, by its state and the reason that was
// told: GoBGP's words for what RFC 4271 has numbers for.
func Why(state, reason string, n Neighbour, g Global) string {
	has := func(text string) bool { return strings.Contains(strings.ToLower(reason), text) }
	received := has("notification-received")
	switch {
	case has("bad peer as") && received:
		return fmt.Sprintf("the peer has another AS for this node than %d", g.ASN)
	case has("bad peer as"), has("bad-peer-as"):
		return fmt.Sprintf("the peer's AS is not %d", n.ASN)
	case has("bad bgp identifier"):
		return fmt.Sprintf("router id %s is the peer's own, or none that it takes", g.RouterID)
	case has("hold timer expired"), has("hold-timer-expired"):
		return fmt.Sprintf("nothing was heard of the peer for the hold time of %d s", n.HoldSeconds)
	case has("administrative shutdown"), has("admin-down"):
		return "the peer's administrator has shut the session down"
	case has("peer de-configured"), has("deconfigured"):
		return "the peer no longer has this node in its configuration"
	case has("connection rejected"):
		return "the peer refuses the session: it may not have this node in its configuration, or be the end of another session with it"
	case received:
		return "the peer ended the session: " + strings.TrimPrefix(reason, "notification-received ")
	case has("notification-sent"):
		return "this node ended the session: " + strings.TrimPrefix(reason, "notification-sent ")
	case has("read-failed"), has("write-failed"), has("graceful-restart"):
		return "the connection broke off: the peer is restarting, or gone"
	}
	return fmt.Sprintf("no connection to TCP port %d (state %s): the peer does not run, does not have this node in its configuration, is not reached, or has another password", n.Port, state)
}
