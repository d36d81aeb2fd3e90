package masquerade

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// masqueradeRule gives what leaves the cluster the node's address. The first
// lookup is the own podCIDRs, because most packets that are asked about have
// another source. What goes to another pod of the node keeps its source, also where
// that pod has an address that is in none of the sets: the podCIDRs may have been
// changed since it was started.
func masqueradeRule(is6 bool, own, pods, nodes, exempt string) rule {
	protocol, family := "ip", byte(unix.NFPROTO_IPV4)
	source := expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	destination := expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	if is6 {
		protocol, family = "ip6", unix.NFPROTO_IPV6
		source.Offset, source.Len = 8, 16
		destination.Offset, destination.Len = 24, 16
	}
	code := append(ofFamily(family), &source, &expr.Lookup{SourceRegister: 1, SetName: own},
		&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: podGroup},
	)
	text := fmt.Sprintf("%s saddr @%s oifgroup != %d", protocol, own, kernel.Group)
	for _, name := range []string{pods, nodes, exempt} {
		code = append(code, &destination, &expr.Lookup{SourceRegister: 1, SetName: name, Invert: true})
		text += fmt.Sprintf(" %s daddr != @%s", protocol, name)
	}
	// Fully random: two pods that use one source port to one server at the same
	// time must not get the same translated one, or the kernel drops the second
	// packet.
	return rule{text + " masquerade fully-random", append(code, &expr.Masq{FullyRandom: true})}
}

// podGroup is the group of pods' interfaces, as the kernel compares it.
var podGroup = binaryutil.NativeEndian.PutUint32(kernel.Group)

// guardRule drops what comes from a pod's interface with a source address that
// is not routed to it. 0.0.0.0 needs no exception: the kernel's fib expression
// lets it pass to broadcast and link-local multicast, as rp_filter does, and it
// has no business elsewhere.
func guardRule() rule {
	code := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: podGroup},
	}
	code = append(code, ofFamily(unix.NFPROTO_IPV4)...)
	return rule{
		fmt.Sprintf("iifgroup %d meta nfproto ipv4 fib saddr . iif oif 0 drop", kernel.Group),
		append(code,
			&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		),
	}
}

// clampRule lowers the maximum segment size of both families: the option in a SYN
// says how much its sender takes, so the one in the first packet limits one
// direction of the data, and the one in the answer the other. `rt mtu` is the
// smaller one of the routes to where the packet goes and where it came from, less
// the headers; a size is never raised. Packets without the flag end at the second
// comparison. It may be asked of any connection that the node forwards: one through
// these routes cannot have larger segments.
func clampRule() rule {
	const (
		flags, syn    = 13, 0x02 // where they are in TCP's header
		maximumSize   = 2        // TCPOPT_MAXSEG
		afterKind     = 2        // the option's kind and length come first
		bytesOfOption = 2
	)
	return rule{"tcp flags syn tcp option maxseg size set rt mtu", []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
		&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: bytesOfOption, Size: bytesOfOption},
		&expr.Exthdr{SourceRegister: 1, Type: maximumSize, Offset: afterKind, Len: bytesOfOption, Op: expr.ExthdrOpTcpopt},
	}}
}

// ofFamily matches one family of a table of both. nft leaves it out of what it
// prints where it goes without saying.
func ofFamily(family byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
}

// equal reports whether two rules do the same: the text is not in the kernel.
func (r rule) equal(o rule) bool {
	return slices.EqualFunc(readable(r.code), readable(o.code), func(a, b expr.Any) bool {
		x, errX := expr.Marshal(unix.NFPROTO_INET, a)
		y, errY := expr.Marshal(unix.NFPROTO_INET, b)
		return errX == nil && errY == nil && bytes.Equal(x, y)
	})
}

// readable leaves out what the library writes and does not read.
func readable(code []expr.Any) []expr.Any {
	return slices.DeleteFunc(slices.Clone(code), func(e expr.Any) bool {
		switch e.(type) {
		case *expr.Rt, *expr.Byteorder:
			return true
		}
		return false
	})
}
