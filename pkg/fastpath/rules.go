package fastpath

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// Mark is the bit of a packet's mark that says that what it belongs to may be remembered.
// It is set behind all other rules, and taken away by the program at tc egress. Neither
// kube-proxy (0x4000, 0x8000), portmap (0x2000), Calico (0xffff0000), Cilium (0x0f00),
// Tailscale (0xff0000), AWS (0x80), Istio (1337) nor wg-quick (51820) use it.
const Mark = 0x1000

// TableID is the table's. Nobody writes to it.
var TableID = nft.ID{Family: nft.INet, Name: "flatnet-fastpath"}

// Table is what marks packets that leave by pods' interfaces and by others, which are
// given by their numbers.
//
//	table inet flatnet-fastpath {
//	    chain decided {
//	        meta mark set meta mark & 0xffffefff
//	        ct status snat,dnat,0x2000 return
//	        ct state established ct status assured meta mark set meta mark | 0x1000
//	        ct state established meta l4proto udp meta mark set meta mark | 0x1000
//	    }
//	    chain leaving {
//	        type filter hook postrouting priority 10000; policy accept;
//	        oifgroup 70 goto decided
//	        oif 2 goto decided
//	    }
//	}
//
// The priority is behind everybody's. A packet that somebody else has given the bit
// loses it. What is translated has to meet conntrack always, and so does what one of its
// helpers reads (0x2000, IPS_HELPER). An assured connection of TCP is one that has passed
// its handshake; of UDP it is enough that both ends have sent something.
func Table(links []int) nft.Table {
	leaving := nft.Chain{
		Name: "leaving", Base: "type filter hook postrouting priority 10000; policy accept;",
		Rules: []string{fmt.Sprintf("oifgroup %d goto decided", kernel.Group)},
	}
	for _, index := range links {
		leaving.Rules = append(leaving.Rules, fmt.Sprintf("oif %d goto decided", index))
	}
	return nft.Table{ID: TableID, Chains: []nft.Chain{
		{Name: "decided", Rules: []string{
			fmt.Sprintf("meta mark set meta mark & %#x", ^uint32(Mark)),
			"ct status snat,dnat,0x2000 return",
			fmt.Sprintf("ct state established ct status assured meta mark set meta mark | %#x", Mark),
			fmt.Sprintf("ct state established meta l4proto udp meta mark set meta mark | %#x", Mark),
		}},
		leaving,
	}}
}
