package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// FabricTable is the routing table with the ways to other nodes' own addresses
// that pods take through a tunnel: `ip route show table 70`.
const FabricTable = 70

// Rule sends what comes from a prefix to a routing table first. Where that has
// no answer the main table is asked as usual.
type Rule struct {
	From     netip.Prefix
	Table    int
	Priority int
}

func (r Rule) String() string {
	return fmt.Sprintf("ip rule add from %s lookup %d priority %d protocol %d", r.From, r.Table, r.Priority, Protocol)
}

// Dependence implements [Object].
func (Rule) Dependence() (Side, string) { return Host, "" }

// in fills a request in.
func (o Rule) in(r *nl.NetlinkRequest) *nl.NetlinkRequest {
	header := nl.NewRtMsg() // a struct fib_rule_hdr has the same layout
	header.Family = uint8(family(o.From.Addr()))
	header.Src_len = uint8(o.From.Bits())
	header.Table = unix.RT_TABLE_UNSPEC
	header.Type = unix.FR_ACT_TO_TBL
	header.Protocol, header.Scope = 0, 0
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.FRA_SRC, o.From.Addr().AsSlice()))
	r.AddData(nl.NewRtAttr(unix.FRA_TABLE, nl.Uint32Attr(uint32(o.Table))))
	r.AddData(nl.NewRtAttr(unix.FRA_PRIORITY, nl.Uint32Attr(uint32(o.Priority))))
	r.AddData(nl.NewRtAttr(unix.FRA_PROTOCOL, nl.Uint8Attr(Protocol)))
	return r
}

// parseRule reads a rule message; ours is false where it is not flatnet's.
func parseRule(message []byte) (rule Rule, ours bool) {
	header := nl.DeserializeRtMsg(message)
	rule.Table = int(header.Table)
	source := unspecified(header.Family)
	for kind, value := range netlink.Attributes(message[header.Len():]) {
		switch kind {
		case unix.FRA_SRC:
			if address, ok := netip.AddrFromSlice(value); ok {
				source = address
			}
		case unix.FRA_TABLE:
			rule.Table = int(nl.NativeEndian().Uint32(value))
		case unix.FRA_PRIORITY:
			rule.Priority = int(nl.NativeEndian().Uint32(value))
		case unix.FRA_PROTOCOL:
			ours = len(value) == 1 && value[0] == Protocol
		}
	}
	rule.From = netip.PrefixFrom(source, int(header.Src_len))
	return rule, ours
}
