package fastpath

import (
	"fmt"
	"net/netip"

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

// Tunnel is where packets of the overlay arrive.
type Tunnel struct {
	Address netip.Addr // of the node; zero for no tunnel
	Port    uint16     // of UDP
}

// Table is what marks packets that leave by pods' interfaces and by others, which are
// given by their numbers.
//
//	table inet flatnet-fastpath {
//	    chain decided {
//	        ct status assured / assured,snat,dnat,0x2000 meta mark set meta mark | 0x1000 accept
//	        meta l4proto udp ct status seen-reply / seen-reply,snat,dnat,0x2000 meta mark set meta mark | 0x1000 accept
//	        meta mark set meta mark & 0xffffefff
//	    }
//	    chain leaving {
//	        type filter hook postrouting priority 10000; policy accept;
//	        oifgroup 70 goto decided
//	        oif 2 goto decided
//	    }
//	    chain arriving {
//	        type filter hook prerouting priority raw; policy accept;
//	        ip daddr 172.30.0.1 udp dport 4789 notrack
//	    }
//	    chain sent {
//	        type filter hook output priority raw; policy accept;
//	        ip saddr 172.30.0.1 udp dport 4789 notrack
//	    }
//	}
//
// The priority is behind everybody's. A packet that somebody else has given the bit
// loses it. What is translated has to meet conntrack always, and so does what one of its
// helpers reads (0x2000, IPS_HELPER). An assured connection of TCP is one that has passed
// its handshake; of UDP it is enough that both ends have sent something. All that is asked
// at once, for every packet that the programs pass on comes here. What is only related to a
// connection has its status too, but is ICMP, or a connection of its own.
//
// Packets of the overlay itself are not tracked: there is nothing to be known of them, for
// the two directions have different ports, and of what they carry connection tracking knows.
func Table(links []int, tunnel Tunnel) nft.Table {
	leaving := nft.Chain{
		Name: "leaving", Base: "type filter hook postrouting priority 10000; policy accept;",
		Rules: []string{fmt.Sprintf("oifgroup %d goto decided", kernel.Group)},
	}
	for _, index := range links {
		leaving.Rules = append(leaving.Rules, fmt.Sprintf("oif %d goto decided", index))
	}
	chains := []nft.Chain{
		{Name: "decided", Rules: []string{
			fmt.Sprintf("ct status assured / assured,snat,dnat,0x2000 meta mark set meta mark | %#x accept", Mark),
			fmt.Sprintf("meta l4proto udp ct status seen-reply / seen-reply,snat,dnat,0x2000 meta mark set meta mark | %#x accept", Mark),
			fmt.Sprintf("meta mark set meta mark & %#x", ^uint32(Mark)),
		}},
		leaving,
	}
	if tunnel.Address.IsValid() {
		family := "ip"
		if tunnel.Address.Is6() {
			family = "ip6"
		}
		chains = append(chains,
			nft.Chain{Name: "arriving", Base: "type filter hook prerouting priority raw; policy accept;", Rules: []string{
				fmt.Sprintf("%s daddr %s udp dport %d notrack", family, tunnel.Address, tunnel.Port),
			}},
			nft.Chain{Name: "sent", Base: "type filter hook output priority raw; policy accept;", Rules: []string{
				fmt.Sprintf("%s saddr %s udp dport %d notrack", family, tunnel.Address, tunnel.Port),
			}})
	}
	return nft.Table{ID: TableID, Chains: chains}
}
