// Package service balances the traffic to Kubernetes Services: what goes to a
// ClusterIP, a NodePort, an external IP or a load balancer's IP is sent to one of
// the Service's endpoints. It means what kube-proxy means.
//
// [FromService] and [FromSlice] make plain values of Kubernetes' objects, [Plan],
// or a [Planner] change by change, a [Ruleset] of them, a [Keeper] the kernel's
// tables of that, and a [Controller] runs all of it from a [Source].
//
// # The tables
//
// There are two, `ip flatnet-services` and `ip6 flatnet-services`. All Services and
// endpoints are elements of maps; the number of rules depends on neither. In IPv4:
//
//	map services      { type ipv4_addr . inet_proto . inet_service : verdict; }
//	map endpoints-tcp { typeof ip daddr . tcp dport . numgen random mod 65536 : ip daddr . tcp dport; }   # and udp, sctp
//	chain dispatch {                                              # jumped to from prerouting and output
//	    ip daddr . meta l4proto . th dport vmap @services         # goto lb-tcp-3, refuse, policy-local, by-source, …; or drop
//	    ip daddr @cluster-ips goto refuse                         # a port that the Service does not have
//	    ip daddr @service-cidrs drop                              # a ClusterIP that nobody has
//	}
//	chain lb-tcp-3 {                                              # of three endpoints; one for each number that occurs
//	    meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 3 map @endpoints-tcp
//	}
//
// A [Front] (address, protocol and port) has its endpoints under its own address
// and port, from index 0 up; a NodePort is a front of each address that serves
// NodePorts. One lookup finds the Service, one the endpoint. Which endpoint has which
// index depends on what was before, so that a change writes what has changed: one
// that comes takes the index of one that goes, or else the last one does, and a start
// takes over what it finds.
//
// Policy Local for external fronts: `goto policy-local`, where the source decides
// between maps inside (this node and its pods: any endpoint) and outside (`goto
// local-tcp-2`, the endpoints of this node, from index 32768 up; or drop).
//
// Source ranges: `goto by-source`, where address, port and source have to be in the
// protocol's set of intervals, and then map filtered says what services would have.
//
// Session affinity: chain sticky-tcp-3 goes before lb-tcp-3. It gives the connection
// the Service's mark and looks for the client and the mark in map affinity-tcp,
// which the kernel fills when the first packet of a connection leaves: map
// remember leads from the mark to a chain for the timeout (one for each that
// occurs), with `update @affinity-tcp { ip saddr . ct mark timeout … : ip daddr . tcp
// dport }`. When an endpoint goes, the keeper deletes its clients from the map. The
// mark is what all fronts of a Service's port have in common: a client stays with
// its endpoint by whatever address it comes. It replaces the mark that a connection
// has, but only of those to Services with affinity; see [affinityID] for its bits.
//
// # Translation of the source
//
// Chain leave decides, from where a packet comes and goes and nothing else. A pod
// that reaches itself gets the node's address as source, because it would drop a
// packet from its own. What this node or its pods sent keeps its source, because
// the answer comes back here. What goes to this node's pods keeps it, because the
// answer passes here. Everything else is translated: external traffic that leaves
// the node. So no mark on packets is needed. That a connection is to a Service
// says its original destination, which is in set cluster-ips or external.
//
// All base chains are of type nat. The kernel asks them for the first packet of a
// connection only; established ones cost nothing, and changes do not touch them.
// Even refusing is done there, in dispatch (from Linux 5.9 on).
//
// # What the kernel refuses
//
// Rules that not every Service needs belong to a feature: source ranges, policy
// Local, affinity, refusing. Where a transaction is refused, the keeper finds out which
// feature's rules are the reason, writes what is safe in their place, and names the
// Services that have to do without. It tries again with every resync.
//
// # What nft 1.0.6 makes of this
//
// No program writes these tables, but people list, save and restore them.
//
//   - One map of endpoints for all protocols would be simpler. But its data has to
//     be declared with a protocol's port. With `tcp dport` nft adds `meta l4proto tcp`
//     to the first rule of every run that names the map, without a word; with `th
//     dport` it refuses such rules in any later run than the map's own ("conflicting
//     protocols specified: ip vs. th"). So there is a map for each protocol.
//   - In the key of a set with intervals it has the kernel turn the bytes of
//     host-endian parts around (`byteorder`), even of a single one like `meta
//     l4proto`. Debian's kernels 6.12.117 and 7.2 refuse that, so sources have a
//     set for each protocol. nft 1.1 no longer does it.
package service
