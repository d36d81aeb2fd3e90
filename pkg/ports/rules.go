// Package ports gives ports of the node to pods (hostPort): a constant number of rules
// of nftables, whatever the number of ports, through netlink and no executable.
//
//	table inet flatnet-ports {
//	    map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }              # of all addresses
//	    map one4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }  # of one
//	    set turned4 { type ipv4_addr . ipv4_addr; }                     # sources that would not be answered by the same way
//	    set masked4 { type ipv4_addr . inet_proto . inet_service; }     # destinations with masqAll
//	    … and the same with a 6
//	    chain guard {
//	        type filter hook prerouting priority raw; policy accept;
//	        iifgroup 70 ip daddr 127.0.0.0/8 drop
//	        iifgroup 70 ip saddr 127.0.0.0/8 drop
//	    }
//	    chain prerouting {
//	        type nat hook prerouting priority dstnat + 10; policy accept;
//	        dnat ip to ip daddr . meta l4proto . th dport map @one4
//	        dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6
//	        fib daddr type != local return
//	        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
//	        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
//	    }
//	    chain output {
//	        type nat hook output priority -90; policy accept;
//	        ip6 daddr ::1 return
//	        … the same as in prerouting
//	    }
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat - 10; policy accept;
//	        ip saddr . ip daddr @turned4 masquerade fully-random
//	        ip6 saddr . ip6 daddr @turned6 masquerade fully-random
//	        ct status dnat ip daddr . meta l4proto . th dport @masked4 masquerade fully-random
//	        ct status dnat ip6 daddr . meta l4proto . th dport @masked6 masquerade fully-random
//	    }
//	}
//
// The kernel asks chains of type nat for the first packet of a connection only. These
// come after those of kube-proxy and of flatnet's Services, which are at dstnat: a
// NodePort of the same number wins, as it does with kube-proxy and portmap.
//
// A source is left as it is wherever the answer comes back by the same way. That is not
// so for a pod that reaches itself, which would drop what comes from its own address,
// and for the node's 127.0.0.1. For the latter the pod's host interface has
// route_localnet set, which would open what listens on 127.0.0.1 to the pod
// (CVE-2020-8558): the guard drops that, and is there before any such interface. IPv6
// has nothing like route_localnet, so connections to ::1 are left alone, and are refused
// unless something listens: `curl localhost` then goes on to 127.0.0.1.
package ports

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// ID is the table. Nobody writes to it.
var ID = nft.ID{Family: nft.INet, Name: "flatnet-ports"}

// family is IPv4 or IPv6.
type family bool

const ipv4, ipv6 family = false, true

var families = []family{ipv4, ipv6}

func (f family) digit() string {
	if f == ipv6 {
		return "6"
	}
	return "4"
}

// length is that of an address, in bytes.
func (f family) length() int {
	if f == ipv6 {
		return 16
	}
	return 4
}

func (f family) addressType() string { return "ipv" + f.digit() + "_addr" }

// any is the map for all addresses of the node.
func (f family) any() nft.Set {
	return nft.Set{Name: "any" + f.digit(), Type: fmt.Sprintf("type inet_proto . inet_service : %s . inet_service", f.addressType())}
}

// one is the map for single addresses.
func (f family) one() nft.Set {
	return nft.Set{Name: "one" + f.digit(), Type: fmt.Sprintf("type %[1]s . inet_proto . inet_service : %[1]s . inet_service", f.addressType())}
}

// turned is the set of sources and destinations that are masqueraded.
func (f family) turned() nft.Set {
	return nft.Set{Name: "turned" + f.digit(), Type: fmt.Sprintf("type %[1]s . %[1]s", f.addressType())}
}

// masked is the set of destinations, as the pod sees them, of which all is masqueraded.
func (f family) masked() nft.Set {
	return nft.Set{Name: "masked" + f.digit(), Type: fmt.Sprintf("type %s . inet_proto . inet_service", f.addressType())}
}

func sets() (all []nft.Set) {
	for _, f := range families {
		all = append(all, f.any(), f.one(), f.turned(), f.masked())
	}
	return all
}

// guardName is the chain by which it is seen whether the table is there: a table is made
// in one transaction.
const guardName = "guard"

func chains() []nft.Chain {
	translating := []string{
		"dnat ip to ip daddr . meta l4proto . th dport map @one4",
		"dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6",
		"fib daddr type != local return",
		"meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4",
		"meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6",
	}
	return []nft.Chain{
		{Name: guardName, Base: "type filter hook prerouting priority raw; policy accept;", Rules: []string{
			fmt.Sprintf("iifgroup %d ip daddr 127.0.0.0/8 drop", kernel.Group),
			fmt.Sprintf("iifgroup %d ip saddr 127.0.0.0/8 drop", kernel.Group),
		}},
		{Name: "prerouting", Base: "type nat hook prerouting priority dstnat + 10; policy accept;", Rules: translating},
		{Name: "output", Base: "type nat hook output priority -90; policy accept;", Rules: append([]string{"ip6 daddr ::1 return"}, translating...)},
		{Name: "postrouting", Base: "type nat hook postrouting priority srcnat - 10; policy accept;", Rules: []string{
			"ip saddr . ip daddr @turned4 masquerade fully-random",
			"ip6 saddr . ip6 daddr @turned6 masquerade fully-random",
			"ct status dnat ip daddr . meta l4proto . th dport @masked4 masquerade fully-random",
			"ct status dnat ip6 daddr . meta l4proto . th dport @masked6 masquerade fully-random",
		}},
	}
}

// build makes the table, whatever is left of it, and keeps the elements that are there.
func build() *nft.Transaction {
	t := &nft.Transaction{}
	t.AddTable(ID, "")
	for _, s := range sets() {
		t.AddSet(ID, s)
	}
	for _, c := range chains() {
		t.RefillChain(ID, c)
	}
	return t
}

// Watcher returns what calls changed when somebody has touched the table, and when that
// may have happened unseen; changed must not wait.
func Watcher(changed func()) nft.Listener {
	return &nft.Watcher{Tables: []nft.ID{ID}, Own: func() uint32 { return 0 }, Changed: changed}
}
