package requirements

import (
	"sync"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Keys that others build on.
const (
	keyIPv6     = "ipv6"
	keyNfTables = "nf_tables"
	keyHTB      = "sch_htb"
)

var (
	everyMasquerade = []Part{Masquerade, IPMasq, Services, Services6, HostPorts}
	everyNftables   = []Part{Masquerade, IPMasq, Guard4, Guard6, Services, Services6, Policies, HostPorts}
	everyService    = []Part{Services, Services6}
)

// features are all that flatnet needs and that a kernel of Linux 5.10 or later
// can lack. Nobody writes to it. It is made at the first question: the plugin asks
// none while ADD succeeds.
var features = sync.OnceValue(func() []Feature {
	return []Feature{
		{Name: "veth", Key: "veth", Module: "veth", Config: "VETH", Since: Version{2, 6}, Parts: []Part{Pods}, probe: linkKind("veth")},
		// Some kernels from 6.7 on have it, and refuse MAC addresses for it as if they had not.
		{Name: "netkit", Key: "netkit", Config: "NETKIT", Since: Version{6, 12}, Parts: []Part{Netkit}, probe: linkKind("netkit"),
			Instead: "or have pods' interfaces be veth (--pod-device veth or auto, podDevice in the plugin's configuration)"},
		{Name: "IPv6", Key: keyIPv6, Module: "ipv6", Config: "IPV6", Since: Version{2, 6}, Parts: []Part{IPv6}, probe: protocolFamily(unix.AF_INET6)},
		{Name: "VXLAN", Key: "vxlan", Module: "vxlan", Config: "VXLAN", Since: Version{3, 7}, Parts: []Part{Overlay}, probe: linkKind("vxlan")},
		{Name: "routing by rules", Key: "rules", Config: "IP_MULTIPLE_TABLES", Since: Version{2, 2}, Parts: []Part{OverlayNodes}, probe: routingRules(unix.AF_INET)},
		{Name: "nf_tables", Key: keyNfTables, Module: "nf_tables", Config: "NF_TABLES", Since: Version{3, 13}, Parts: everyNftables, probe: subsystem{unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETGEN}},
		{Name: "conntrack's netlink", Key: "nf_conntrack_netlink", Module: "nf_conntrack_netlink", Config: "NF_CT_NETLINK", Since: Version{2, 6}, Parts: []Part{Forgetting}, probe: tracking{}},
		{Name: "token buckets", Key: "sch_tbf", Module: "sch_tbf", Config: "NET_SCH_TBF", Since: Version{2, 6}, Parts: []Part{Rates}, probe: queue("tbf")},
		{Name: "hierarchies of token buckets", Key: keyHTB, Module: "sch_htb", Config: "NET_SCH_HTB", Since: Version{2, 6}, Parts: []Part{NetworkRates}, probe: queue("htb")},
		{Name: "filters of traffic by address", Key: "cls_u32", Module: "cls_u32", Config: "NET_CLS_U32", Since: Version{2, 6}, Parts: []Part{NetworkRates}, Beneath: keyHTB, probe: filter("u32")},

		{Name: "nftables' chains of type nat", Key: "nft_chain_nat", Module: "nft_chain_nat", Config: "NFT_NAT", Since: Version{5, 2}, Parts: everyMasquerade, Beneath: keyNfTables,
			probe: natChain{unix.NFPROTO_INET}},
		{Name: "nftables' masquerade", Key: "nft_masq", Module: "nft_masq", Config: "NFT_MASQ", Since: Version{3, 18}, Parts: everyMasquerade, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_INET, code: &expr.Masq{FullyRandom: true}}},
		{Name: "nftables' fib for both families", Key: "nft_fib_inet", Module: "nft_fib_inet", Config: "NFT_FIB_INET", Since: Version{4, 10}, Parts: []Part{Guard4, HostPorts}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_INET, code: fibInterface}},
		{Name: "nftables' fib for IPv6", Key: "nft_fib_ipv6", Module: "nft_fib_ipv6", Config: "NFT_FIB_IPV6", Since: Version{4, 10}, Parts: []Part{Guard6, Services6}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV6, code: fibInterface}},
		{Name: "nftables' fib for IPv4", Key: "nft_fib_ipv4", Module: "nft_fib_ipv4", Config: "NFT_FIB_IPV4", Since: Version{4, 10}, Parts: []Part{Services}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV4, code: fibInterface}},
		{Name: "nftables' dnat", Key: "nft_nat", Module: "nft_nat", Config: "NFT_NAT", Since: Version{3, 13}, Parts: []Part{Services, Services6, HostPorts}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV4, code: &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}, first: &expr.Immediate{Register: 1, Data: make([]byte, 4)}}},
		{Name: "nftables' numgen", Key: "nft_numgen", Module: "nft_numgen", Config: "NFT_NUMGEN", Since: Version{4, 9}, Parts: everyService, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV4, code: &expr.Numgen{Register: 1, Modulus: 2, Type: unix.NFT_NG_RANDOM}}},
		{Name: "nftables' ct", Key: "nft_ct", Module: "nft_ct", Config: "NFT_CT", Since: Version{3, 13}, Parts: []Part{Services, Services6, Policies, HostPorts}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV4, code: &expr.Ct{Register: 1, Key: expr.CtKeyMARK}}},
		{Name: "nftables' reject for IPv4", Key: "nft_reject_ipv4", Module: "nft_reject_ipv4", Config: "NFT_REJECT_IPV4", Since: Version{3, 14}, Parts: []Part{Services}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV4, code: &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		{Name: "nftables' reject for IPv6", Key: "nft_reject_ipv6", Module: "nft_reject_ipv6", Config: "NFT_REJECT_IPV6", Since: Version{3, 14}, Parts: []Part{Services6}, Beneath: keyNfTables,
			probe: expression{of: unix.NFPROTO_IPV6, code: &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		{Name: "nftables' sets of intervals of concatenations", Key: "interval_concatenation", Since: Version{5, 6}, Parts: everyService, Beneath: keyNfTables,
			probe: intervalConcatenation{}},
		// The kernel would have to be given a rule to keep: it looks at the hooks of
		// one only when a transaction ends.
		{Name: "nftables' reject in prerouting", Key: "reject_prerouting", Since: Version{5, 9}, Parts: everyService, Beneath: keyNfTables},
	}
})

// fibInterface is `fib saddr . iif oif`.
var fibInterface = &expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true}
