package problem

import "iter"

// Kind is a sort of problem: what it means and what is to be done about it are
// the same wherever it comes up.
type Kind int

// The kinds, the most general first.
const (
	NodesSource        Kind = iota // the list of nodes is not up to date
	ServicesSource                 // the lists of Services and endpoints are not up to date
	KernelFeature                  // the kernel lacks something
	NodeUnlisted                   // this node is not among the nodes
	TaskFailed                     // a piece of the agent's work could not be done
	NodeEntry                      // an entry of the list of nodes cannot be used
	NoPodCIDR                      // this node has no addresses for pods
	PodCIDRRoute                   // a route of somebody else's is at odds with a podCIDR
	NoOverlay                      // this node's end of the overlay cannot be planned
	VXLANName                      // somebody else's interface has the tunnel's name
	VXLANNumber                    // another VXLAN device has the tunnel's number
	VXLANPort                      // somebody else has the tunnel's UDP port
	RouteTaken                     // somebody else's route or rule is in the place of one of flatnet's
	FabricObject                   // the kernel refuses something else of the fabric
	PeerWithoutAddress             // another node has no address
	PeerOverlay                    // another node could be reached through an overlay that there is not
	PeerFamily                     // another node has no address of the family that it would take
	PeerRoute                      // there is no route to another node
	Probes                         // other nodes cannot be probed
	PeersLost                      // nothing comes back from several nodes
	PeerLost                       // nothing comes back from another node
	PeerLossy                      // some of what is sent to another node is lost
	PeerMTU                        // large packets to another node are lost
	PodsOutside                    // pods hold addresses that are no longer this node's
	HostPort                       // a port of the node does not lead to the pod that asked for it
	SysctlDirectory                // sysctls cannot be written at all
	Sysctl                         // a sysctl is not as needed
	ForwardChain                   // a chain of hook forward drops pods' packets
	ManagerFile                    // a network manager cannot be told to leave flatnet's interfaces alone
	PluginFile                     // a file keeps runtimes from using the plugin
	ServicesRules                  // the rules of Services could not be written
	ServicesFeature                // some rules of Services are refused
	ServicesConflict               // two Services claim the same address and port
	PoliciesSource                 // the lists of policies, pods and namespaces are not up to date
	PoliciesRules                  // the rules of policies could not be written
	PoliciesFeature                // a part of what policies say is not in force
	PolicyFault                    // a policy cannot be understood in part or at all
	KubeProxy                      // kube-proxy balances as well
	ClusterIPRoute                 // the node has no route to ClusterIPs
	ServiceHealth                  // a Service's health cannot be told to load balancers
	NodeHealth                     // the node's health cannot be told to load balancers
	BalancerConfig                 // the configuration of load balancers' addresses is not good
	BalancerSource                 // what load balancers' addresses depend on is not up to date
	BalancerAddress                // Services of type LoadBalancer have no address, or it cannot be written
	AnnounceLease                  // the node may not answer for addresses of load balancers
	AnnounceInterface              // an interface cannot be answered at
	AnnounceConflict               // somebody else has an address of a load balancer
	ProxyMetrics                   // kube-proxy's metrics and mode cannot be told to monitoring
	FastPath                       // established flows do not take the fast path
	BGPConfig                      // the configuration of BGP cannot be used
	BGPProgram                     // flatnet-bgp does not run, or cannot do what it is to do
	BGPSession                     // a peer is not reached by BGP
	BGPRefused                     // a peer tells of networks that are never accepted
	BGPMaximum                     // peers tell of more routes than are accepted
	BGPNextHop                     // the next hop of learned routes is not on link
	numberOfKinds
)

// description of a kind, as docs/operations.md has it too.
type description struct {
	name    string // for machines
	meaning string
	advice  string // what to do where nothing more is known of the object
}

// descriptions are those of all kinds. Nobody writes to it.
var descriptions = [numberOfKinds]description{
	NodesSource: {"nodes-source", "the list of nodes cannot be read or watched; what was known before stays in force",
		"correct the file, which is read again by itself; or see to it that the node reaches the API server, and that flatnetd may list and watch nodes"},
	ServicesSource: {"services-source", "Services or their endpoints cannot be watched; what was known before stays in force",
		"see to it that the node reaches the API server, and that flatnetd has the rights of deploy/base/rbac.yaml"},
	KernelFeature: {"kernel-feature", "the kernel lacks something that this node needs; the sentence says what is off without it",
		"load the module, or boot a kernel that has it: docs/kernel.md lists what is needed"},
	NodeUnlisted: {"node-unlisted", "the list of nodes does not have this node; nothing is changed",
		"set --node-name to the name that the node has in the list, or add it there"},
	TaskFailed: {"task", "a piece of the agent's work failed; it is tried again by itself, at first after a second",
		"the reason is the kernel's or the file system's own: mend that, and the next try is soon"},
	NodeEntry: {"node-entry", "an entry of the list of nodes cannot be used; everything else is joined",
		"correct the field that the sentence names, at the node that it names"},
	NoPodCIDR: {"no-podcidr", "this node has no usable podCIDR: the plugin's configuration is not written, and pods are not started",
		"Kubernetes assigns one if the controller manager runs with --allocate-node-cidrs; otherwise give the node one"},
	PodCIDRRoute: {"podcidr-route", "a network or route that this node has is at odds with a podCIDR, which is left out",
		"remove the route, or give the node another podCIDR"},
	NoOverlay: {"no-overlay", "this node's end of the overlay cannot be made, because its address is not known or no interface has it",
		"compare the node's addresses in the source of nodes with `ip addr`"},
	VXLANName: {"vxlan-name", "an interface that is no VXLAN device has the tunnel's name",
		"if it is no longer wanted, remove it with `ip link del`; or name the tunnel otherwise with --vxlan-device"},
	VXLANNumber: {"vxlan-number", "another VXLAN device has the tunnel's VNI and UDP port",
		"if it is no longer wanted, remove it with `ip link del`; or set another --vxlan-id, the same on all nodes"},
	VXLANPort: {"vxlan-port", "a VXLAN device of another sort, or another program, has the tunnel's UDP port",
		"end or remove it; or set another --vxlan-port, the same on all nodes"},
	RouteTaken: {"route-taken", "somebody else's route or rule is where one of flatnet's has to be; it is left alone",
		"remove it if it is not wanted; flatnetd's comes within --resync"},
	FabricObject: {"fabric-object", "the kernel refuses a route, an address or an entry of the fabric for another reason",
		"look at the kernel's log (dmesg), and at what else manages interfaces and routes on this node; it is tried again by itself"},
	PeerWithoutAddress: {"peer-without-address", "another node has no address, so that its pods are not reached",
		"wait for its address, or give it one in the source of nodes"},
	PeerOverlay: {"peer-overlay", "another node's pods are reached through the overlay only, which this node does not have",
		"mend this node's overlay, which has a problem of its own; or make the other node reachable on link"},
	PeerFamily: {"peer-family", "another node has no address of the family that its pods would be reached by",
		"give the node such an address; with an overlay, list the same family first at all nodes"},
	PeerRoute: {"peer-route", "this node has no route to another node's address, and fabric direct needs one",
		"look at `ip route get` with that address; give the node a route, or use fabric auto or vxlan"},
	Probes: {"probes", "other nodes cannot be probed: what does not get through to them is not told",
		"run flatnetd as root, with CAP_NET_RAW; or switch probes off with --health off"},
	PeersLost: {"peers-lost", "packets to the pods of several nodes are lost, most likely for one reason",
		"look at what their ways have in common: this node's own interface and firewall, a router, UDP port 4789 where they are reached by vxlan"},
	PeerLost: {"peer-lost", "packets to the pods of another node are lost, all of them: there is a route, and nothing comes back",
		"see whether the node runs; let UDP port 4789 (vxlan) or packets with pods' addresses (direct) pass between both nodes"},
	PeerLossy: {"peer-lossy", "packets to the pods of another node are lost, some of them",
		"look at `ip -s link` of both nodes for errors and drops, and at what lies between them"},
	PeerMTU: {"peer-mtu", "packets as large as the MTU of pods are lost on the way to another node, smaller ones are not, and nobody says so",
		"set --mtu to what the network takes, less 50 bytes (70 over IPv6) for vxlan; or let the network take larger packets"},
	PodsOutside: {"pods-outside", "the node's podCIDRs were changed while pods ran: other nodes have no route to these pods",
		"delete the pods, so that they are made anew"},
	HostPort: {"host-port", "a port of the node that a pod asked for (hostPort) does not lead to it",
		"the sentence says what has the port; `nft list table inet flatnet-ports` shows what is there"},
	SysctlDirectory: {"sysctl-directory", "flatnetd cannot write sysctls at all",
		"let flatnetd write the node's /proc/sys: in a container it is read-only unless the node's own is mounted, and named with --sysctl-dir"},
	Sysctl: {"sysctl", "a setting of the kernel is not as needed, and could not be set",
		"set it on the node with `sysctl -w`, and find out what keeps flatnetd from it"},
	ForwardChain: {"forward-chain", "a chain of hook forward may drop what pods send and receive",
		"let the podCIDRs pass in that chain, and in the file that it is loaded from"},
	ManagerFile: {"manager-file", "a file for a network manager cannot be written: it may configure or remove what is flatnet's",
		"let flatnetd write to the node's /run, or write the file by hand"},
	PluginFile: {"plugin-file", "a binary or configuration of the plugin is not as it should be, or another one comes first",
		"look at the file: flatnetd writes it again by itself as soon as it can"},
	ServicesRules: {"services-rules", "the rules of Services could not be written; it is tried again, and the rules before stay",
		"the reason is nft's or the kernel's own; `nft list table ip flatnet-services` shows what is there"},
	ServicesFeature: {"services-feature", "the kernel or nft refuses the rules of a feature of Services; all others are served",
		"docs/kernel.md says which kernels and which versions of nft take these rules"},
	ServicesConflict: {"services-conflict", "addresses and ports are claimed by more than one Service; the older one has them",
		"`flatnetd status services` says which has them; `kubectl describe service` of the others has an event"},
	PoliciesSource: {"policies-source", "policies, or pods, namespaces or nodes that they are about, cannot be watched or read; what was known before stays in force",
		"see to it that the node reaches the API server, and that flatnetd has the rights of deploy/base/rbac.yaml; or correct the file that the sentence names"},
	PoliciesRules: {"policies-rules", "the rules of policies could not be written; it is tried again, the rules before stay, and new pods that policies are about stay closed",
		"the reason is the kernel's own; `nft list table inet flatnet-policy` shows what is there"},
	PoliciesFeature: {"policies-feature", "a part of what policies say is not in force on this node, since the kernel refuses rules, or because of IPVS; the rest is",
		"the sentence says what is not in force; docs/policies.md says what passes which hook, and docs/kernel.md which modules it needs"},
	PolicyFault: {"policy-fault", "a policy cannot be understood in part or at all; what is understood of it is in force",
		"correct the field that the sentence names"},
	KubeProxy: {"kube-proxy", "kube-proxy balances Services as well, or has left its rules: whichever the kernel asks first decides",
		"end kube-proxy on this node and run `kube-proxy --cleanup`, or run flatnetd without --services"},
	ClusterIPRoute: {"clusterip-route", "the node has no route to ClusterIPs: pods reach Services, what runs on the node itself does not",
		"give the node a default route, or one to the Services' network: where it leads does not matter"},
	ServiceHealth: {"service-health", "something else listens where load balancers ask for a Service's health",
		"look at `ss -ltnp` for who has the port, or give the Service another healthCheckNodePort"},
	NodeHealth: {"node-health", "something else listens where load balancers ask for the node's health",
		"look at `ss -ltnp` for who has the port; give another --services-health, or an empty one; a kube-proxy that ends frees it within ten seconds"},
	BalancerConfig: {"loadbalancer-config", "the configuration of load balancers' addresses cannot be read or is wrong; what it said before stays in force",
		"correct the key that the sentence names: the file is read again by itself; docs/loadbalancer.md has all keys"},
	BalancerSource: {"loadbalancer-source", "Services, endpoints or Leases cannot be watched; what was known before stays, but who cannot renew its Lease does not answer for addresses",
		"see to it that the node reaches the API server, and that flatnetd has the rights of deploy/components/loadbalancer"},
	BalancerAddress: {"loadbalancer-address", "Services of type LoadBalancer do not have all their addresses",
		"`flatnetd status announcements` on the node that gives addresses lists all of them, with the reason, and so do the Services' events; enlarge the pool, or change the Service"},
	AnnounceLease: {"announce-lease", "the node could not renew its Lease: it answers for no address, so that another node can, unless no other node can renew its Lease either and all hear each other; with withoutLease: stop it does not then, and with answer it always goes on",
		"see to it that the node reaches the API server, and that flatnetd has the rights of deploy/components/loadbalancer"},
	AnnounceInterface: {"announce-interface", "an interface that the configuration names cannot be used for answering",
		"set it up, with a carrier; or name another one in the pool's layer2.interfaces. On nodes that do not have it at all this is no problem"},
	AnnounceConflict: {"announce-conflict", "another machine on the segment says to have an address for which this node answers",
		"find the machine by its MAC address, and give it another address; or take the address out of the pool"},
	ProxyMetrics: {"proxy-metrics", "something else listens where monitoring asks for kube-proxy's metrics and mode",
		"look at `ss -ltnp` for who has the port; give another --services-metrics, or an empty one; a kube-proxy that ends frees it within ten seconds"},
	FastPath: {"fast-path", "established flows do not take the fast path, on this node or at an interface; they take the kernel's way, which is slower and as right",
		"docs/fastpath.md says what it needs; with --datapath auto or kernel a node that cannot have it has no problem"},
	BGPConfig: {"bgp-config", "the configuration of BGP cannot be used; what was in force before stays",
		"correct the key that the sentence names; the file is read again by itself"},
	BGPProgram: {"bgp-program", "flatnet-bgp does not run, or cannot do all that it is to do; routes stay until their time is over",
		"the reason is the program's own: look at flatnetd's log; it is started, and tries, again by itself"},
	BGPSession: {"bgp-session", "there is no BGP session with a peer",
		"compare both sides' AS, addresses and passwords, and see to it that TCP port 179 passes between them"},
	BGPRefused: {"bgp-refused", "a peer tells of a network that would be wrong to believe; it is not used",
		"correct what the router announces to nodes; or, if it is meant, let it pass in accept"},
	BGPMaximum: {"bgp-maximum", "peers tell of more networks that are accepted than accept.maximumRoutes; the rest is not used",
		"have routers announce less to nodes (a default route may do), narrow accept.prefixes, or raise accept.maximumRoutes"},
	BGPNextHop: {"bgp-next-hop", "routes were learned whose next hop is not on link; they are not used",
		"have the router set itself as the next hop (next-hop-self)"},
}

// All returns every kind.
func All() iter.Seq[Kind] {
	return func(yield func(Kind) bool) {
		for k := range numberOfKinds {
			if !yield(k) {
				return
			}
		}
	}
}

// String is the kind's name for machines: "vxlan-number".
func (k Kind) String() string { return descriptions[k].name }

// Meaning says what a problem of the kind means, whatever its object is.
func (k Kind) Meaning() string { return descriptions[k].meaning }

// Advice says what to do about problems of the kind, whatever their object is.
func (k Kind) Advice() string { return descriptions[k].advice }
