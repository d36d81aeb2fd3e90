package masquerade

import "net/netip"

// Config is what the ruleset is computed from. Prefixes and addresses of both
// families are mixed, in any order; those of a family that is off are ignored.
type Config struct {
	// IPv4 and IPv6 switch masquerading on, each for its family. A family that
	// is off has neither sets nor a rule.
	IPv4, IPv6 bool
	Own        []netip.Prefix // this node's podCIDRs
	Pods       []netip.Prefix // podCIDRs of all nodes, the own included
	Nodes      []netip.Addr   // addresses of all nodes
	// Exempt are further destinations that see a pod's own address. They may
	// overlap each other and anything else.
	Exempt []netip.Prefix
	// GuardIPv4 drops what comes from a pod's interface with an IPv4 source
	// address that is not routed to that interface. It is needed where
	// net.ipv4.conf.all.rp_filter is 2: the kernel takes the larger of that and
	// the interface's own 1, and 2 is the loose check.
	GuardIPv4 bool
	// ClampMSS lowers the maximum segment size in the SYNs of forwarded TCP
	// connections to what the routes to both of their ends take, so that they do not
	// rely on a router that says when a packet is too large.
	ClampMSS bool
}
