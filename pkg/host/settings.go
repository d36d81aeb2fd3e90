package host

// Sysctls returns the settings that the needs ask for, in the order in which
// they are to be made.
func Sysctls(n Needs) []Sysctl {
	var all []Sysctl
	links := n.Underlay
	if n.Tunnel != "" {
		links = append(links[:len(links):len(links)], n.Tunnel)
	}
	// That of all interfaces first: it sets every interface's own.
	if n.IPv4 {
		all = append(all, Sysctl{Key: "net/ipv4/ip_forward", Value: 1, Required: true})
		for _, l := range links {
			all = append(all, Sysctl{Key: "net/ipv4/conf/" + l + "/forwarding", Value: 1})
		}
	}
	if n.IPv6 {
		all = append(all, Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: 1, Required: true})
		for _, l := range links {
			all = append(all, Sysctl{Key: "net/ipv6/conf/" + l + "/forwarding", Value: 1})
		}
	}
	// A packet of one peer may come by the tunnel and its answer go directly, or
	// by another interface of the underlay: the strict check would drop it. This
	// does not hang on the pods' families, because the tunnel's own packets may
	// be IPv4 where the pods' are not.
	for _, l := range links {
		all = append(all, Sysctl{Key: "net/ipv4/conf/" + l + "/rp_filter", Value: 2, Rule: NotStrict})
	}
	if n.IPv4 {
		all = append(all, neighbourLimits("ipv4", n.Pods+n.Nodes)...)
	}
	if n.IPv6 {
		all = append(all, neighbourLimits("ipv6", n.Pods+n.Nodes)...)
	}
	if n.Services {
		// A connection of which one side has been closed may be in use for long,
		// and breaks where its translation is forgotten; the kernel's default
		// is a minute. kube-proxy sets the same.
		const seconds = 3600
		all = append(all, Sysctl{Key: "net/netfilter/nf_conntrack_tcp_timeout_close_wait", Value: seconds, Rule: AtLeast})
	}
	if n.FastPath {
		// Who does not see a connection's middle cannot judge its sequence numbers. By
		// this, those that seem wrong are taken for right, and RST is judged as before.
		all = append(all, Sysctl{Key: BeLiberal, Value: 1})
		// It may have seen the data and not what acknowledged them, and would forget the
		// connection after five minutes of silence; kube-proxy has a day for those that
		// are established.
		const day = 24 * 3600
		all = append(all, Sysctl{Key: "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", Value: day, Rule: AtLeast})
	}
	return all
}

// BeLiberal is the setting by which connection tracking does not judge sequence numbers.
const BeLiberal = "net/netfilter/nf_conntrack_tcp_be_liberal"

// neighbourLimits makes room for four times as many neighbours as there are
// pods and nodes. The table is one for all network namespaces of the machine, so
// every pod's own entries count as well; permanent entries are never collected,
// but they fill the table for others. The numbers are powers of two, so that
// they change seldom while pods come and go.
//
// Above thresh3 the kernel refuses new entries, above thresh2 it collects after
// 5 seconds, and below thresh1 it does not collect at all; their
// proportions are those of the kernel's defaults (128, 512, 1024). The greatest
// comes first, so that they are never out of order.
func neighbourLimits(family string, neighbours int) []Sysctl {
	// More than this is a mistake, and would take gigabytes.
	const most = 1 << 22
	limit := 1
	for limit < most && limit < 4*min(neighbours, most) {
		limit *= 2
	}
	key := "net/" + family + "/neigh/default/gc_thresh"
	return []Sysctl{
		{Key: key + "3", Value: limit, Rule: AtLeast},
		{Key: key + "2", Value: limit / 2, Rule: AtLeast},
		{Key: key + "1", Value: limit / 8, Rule: AtLeast},
	}
}
