package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/announce"
	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/pkg/host"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/loadbalancer"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// sourceOf is a source of nodes that is as well as err says.
type sourceOf struct{ err error }

func (sourceOf) Run(context.Context, func([]node.Node)) error { return nil }
func (s sourceOf) Check() error                               { return s.err }

// refusing is a kernel that holds nothing and refuses what it has an error for,
// by the beginning of its command.
type refusing map[string]error

func (refusing) List() ([]kernel.Object, error) { return nil, nil }

func (r refusing) Apply(changes []kernel.Change) []error {
	results := make([]error, len(changes))
	for i, c := range changes {
		for command, err := range r {
			if strings.HasPrefix(c.String(), command) {
				results[i] = fmt.Errorf("%s: %w", c, err)
			}
		}
	}
	return results
}

func listed(name string, parts ...string) node.Node {
	n := node.Node{Name: name}
	for _, text := range parts {
		if p, err := netip.ParsePrefix(text); err == nil {
			n.PodCIDRs = append(n.PodCIDRs, p)
		} else {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(text))
		}
	}
	return n
}

// node1 is an agent of node n1 and its features, as far as tests look into them.
type node1 struct {
	*Agent
	joining      *joining
	probing      *probing
	pods         *pods
	host         *hostKeeping
	installation *installation
	services     *services
}

// on is an agent that has planned the fabric in a mode, on a node with one interface
// and what else there is, and applied it to a kernel.
func on(t *testing.T, mode fabric.Mode, k fabric.Kernel, nodes []node.Node, more ...kernel.UnderlayRoute) node1 {
	t.Helper()
	a := plainWith(func(c *Config) { c.Fabric = fabric.Config{Mode: mode, Tunnel: "flatnet.vx", VNI: 70, Port: 4789} })
	a.joining.configure()
	s := a.shared
	s.Accepted, a.joining.refused = node.Judge("n1", nodes)
	self, found := s.Find("n1")
	if !found {
		t.Fatalf("n1 is not among %v", nodes)
	}
	eth0 := netip.MustParsePrefix("172.30.0.1/24")
	s.Underlay = kernel.Underlay{
		Links:  []kernel.UnderlayLink{{Name: "eth0", MTU: 1500, Up: true, Addresses: []netip.Prefix{eth0}}},
		Routes: append([]kernel.UnderlayRoute{{Destination: eth0.Masked(), Link: "eth0"}}, more...),
	}
	s.Plan = a.joining.planner.Plan(self, s.Accepted, s.Underlay)
	s.Fabric = fabric.NewEngine(k)
	if _, err := s.Fabric.Sync(s.Plan); err != nil {
		t.Fatal(err)
	}
	return a
}

// plain is an agent of which nothing is known yet.
func plain() node1 { return plainWith(func(*Config) {}) }

// plainWith is one with other flags.
func plainWith(change func(*Config)) node1 {
	c := Config{NodeName: "n1", NodesFile: "/etc/nodes.yaml", StateDir: "/run/flatnet", Health: HealthAuto}
	change(&c)
	a := node1{Agent: newAgent(c, slog.New(slog.DiscardHandler))}
	a.joining, a.pods, a.host = newFabric(c, nil, a.shared), newPods(c, a.shared), newHostKeeping(c, a.shared)
	a.installation, a.services = newInstallation(c, a.shared), newServices(c, nil, service.NewWatch(nil, a.log), service.NewBook(), a.shared)
	a.probing = newProbing(c, a.shared)
	a.joining.source, a.shared.Fabric = sourceOf{}, fabric.NewEngine(refusing{})
	a.joining.begun.Store(true)
	a.have([]feature.Feature{
		a.joining.feature(), a.probing.feature(), a.pods.feature(), a.host.feature(), a.installation.feature(), a.services.feature(), newKernelKeeping(c, a.shared).feature(),
	})
	return a
}

// have gives an agent features that are not open.
func (a *Agent) have(all []feature.Feature) {
	a.features = all
	for _, f := range all {
		a.schedule = append(a.schedule, f.Tasks...)
	}
}

// whole is an agent with all features, of which nothing is known yet.
func whole() *Agent {
	c := Config{NodeName: "n1"}
	a := newAgent(c, slog.New(slog.DiscardHandler))
	a.have(features(c, nil, a.shared))
	return a
}

// planned is an agent that has joined a node that is on link, and has no problem.
func planned(t *testing.T) node1 {
	return on(t, fabric.Direct, refusing{}, []node.Node{near, peer})
}

var (
	near = listed("n1", "172.30.0.1", "10.244.1.0/24")
	peer = listed("n2", "172.30.0.2", "10.244.2.0/24")
	far  = listed("n3", "172.31.0.3", "10.244.3.0/24")
)

// telling are the problems of an agent.
func telling(a node1) []problem.Problem { return a.currentProblems() }

// example brings about problems of one kind; the first of them is looked at.
type example struct {
	bring   func(*testing.T) []problem.Problem
	want    string // the sentence
	advice  string // what to do, or a part of it
	follows string // names of what follows from it, "; " between them
}

// examples are all kinds of problems that the agent can tell, each with at least one
// example.
var examples = map[problem.Kind][]example{
	problem.NodesSource: {
		{func(*testing.T) []problem.Problem {
			a := plain()
			a.joining.source = sourceOf{errors.New("reading /etc/nodes.yaml: line 5: did not find ',' or ']'")}
			return telling(a)
		}, "source of nodes: reading /etc/nodes.yaml: line 5: did not find ',' or ']'", "correct /etc/nodes.yaml: it is read again by itself", ""},
		{func(*testing.T) []problem.Problem {
			a := plainWith(func(c *Config) { c.NodesFile = "" })
			a.joining.source = sourceOf{errors.New("watching nodes: failing since 2026-01-02T03:04:05Z: connection refused")}
			return problem.Fold(append(a.everyProblem(), balancing{node: "n1", lost: errors.New("watching services: connection refused")}.problems()...))
		}, "source of nodes: watching nodes: failing since 2026-01-02T03:04:05Z: connection refused", "see to it that the node reaches the API server, and that flatnetd may list and watch nodes (deploy/base/rbac.yaml)", "node n1: source of Services"},
	},
	problem.ServicesSource: {{balanced(balancing{lost: errors.Join(errors.New("watching services: forbidden"), errors.New("watching endpointslices: forbidden"))}),
		"node n1: source of Services: watching services: forbidden; watching endpointslices: forbidden", "deploy/base/rbac.yaml", ""}},
	problem.KernelFeature: {
		{func(t *testing.T) []problem.Problem {
			a := on(t, fabric.VXLAN, refusing{}, []node.Node{near, far})
			a.shared.Kernel = askKernel(kernelWithout{"vxlan"}, a.config.parts())
			a.joining.configure()
			a.shared.Plan = a.joining.planner.Plan(near, a.shared.Accepted, a.shared.Underlay)
			return telling(a)
		}, "node n1: kernel 6.1.0-9: VXLAN (vxlan) is missing: nodes that need the overlay are not reached",
			"`modprobe vxlan` on the node shows why it cannot be loaded (a container cannot load it); the kernel needs CONFIG_VXLAN", "node n3: podCIDR 10.244.3.0/24"},
		{func(*testing.T) []problem.Problem {
			a := plainWith(func(c *Config) { c.Services = true })
			a.shared.Kernel = askKernel(kernelWithout{"nft_numgen"}, a.config.parts())
			return telling(a)
		}, "node n1: kernel 6.1.0-9: nftables' numgen (nft_numgen) is missing: flatnetd balances no Services", "CONFIG_NFT_NUMGEN; then start flatnetd again", ""},
		{func(*testing.T) []problem.Problem {
			a := plainWith(func(c *Config) { c.PodDevice = "netkit" })
			a.shared.Kernel = askKernel(kernelWithout{"netkit"}, a.config.parts())
			return telling(a)
		}, "node n1: kernel 6.1.0-9: netkit (NETKIT) is missing: pods whose interfaces are to be netkit are refused", "or have pods' interfaces be veth (--pod-device veth or auto", ""},
	},
	problem.NodeUnlisted: {{func(t *testing.T) []problem.Problem {
		a := plain()
		a.joining.listed.Store(&[]node.Node{peer})
		failing(a.joining.join, a.joining.join.Run(t.Context()))
		return telling(a)
	}, "--node-name n1: node n1 is not in the source of nodes (/etc/nodes.yaml): nothing is changed", "set --node-name to the name that this node has in /etc/nodes.yaml", ""}},
	problem.BGPConfig: {
		{speaking("asn: 64512\nprs: []\n", nil), "node n1: --bgp-config CONFIG: unknown field \"prs\"", "correct the key", ""},
		{speaking("asn: 64512\npeers: [{address: 172.30.0.250, asn: 64600}]\nannounce: {services: [loadBalancer]}\n", nil), "node n1: announce.services: Services come from the Kubernetes API", "--kubeconfig", ""},
	},
	problem.BGPProgram: {{speaking(onePeer, func(f *routing) {
		f.take(message.Event{Error: "exit status 2"})
		f.sessions["tor"].Session.Established = true
	}), "node n1: flatnet-bgp: flatnet-bgp has ended: exit status 2", "look at flatnetd's log", ""}},
	problem.BGPSession: {
		{speaking(onePeer, func(f *routing) { f.sessions["tor"].since = time.Now().Add(-time.Minute) }),
			"node n1: peer tor (172.30.0.250, AS 64600): no connection to TCP port 179 (state idle)", "addresses and passwords", ""},
		{speaking(onePeer, func(f *routing) {
			f.take(message.Event{Neighbour: "tor", Session: &message.Session{State: "idle", Reason: "notification-received code 2(open message error) subcode 2(bad peer as)"}})
			f.sessions["tor"].since = time.Now().Add(-time.Minute)
		}), "node n1: peer tor (172.30.0.250, AS 64600): the peer has another AS for this node than 64512", "compare both sides' AS", ""},
	},
	problem.BGPRefused: {{tellingOf("0.0.0.0/0"), "node n1: peer tor: announces 0.0.0.0/0, which is refused: default routes are not accepted", "let it pass in accept", ""}},
	problem.BGPMaximum: {{tellingOf("192.0.2.0/24", "192.0.3.0/24"), "node n1: accept.maximumRoutes: 1 routes are accepted, and 1 more are not used", "raise accept.maximumRoutes", ""}},
	problem.BGPNextHop: {{func(t *testing.T) []problem.Problem {
		a := on(t, fabric.Direct, refusing{}, []node.Node{near, peer})
		a.joining.planner.Learned = fabric.Learned{netip.MustParsePrefix("192.0.2.0/24"): {netip.MustParseAddr("203.0.113.1")}}
		a.shared.Plan = a.joining.planner.Plan(near, a.shared.Accepted, a.shared.Underlay)
		return telling(a)
	}, "node n1: next hop 203.0.113.1: is not on link, so that 1 learned routes are not used, the first of them to 192.0.2.0/24", "next-hop-self", ""}},
	problem.TaskFailed: taskExamples(),
	problem.NodeEntry: {
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, peer, listed("n3", "172.30.0.3", "10.244.2.128/25")}))
		}, "node n3: podCIDRs[0] 10.244.2.128/25: overlaps 10.244.2.0/24 of node n2", "give each node podCIDRs of its own", ""},
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.Direct, refusing{}, []node.Node{listed("n1", "172.30.0.1", "10.244.1.7/24"), peer}))
		}, "node n1: podCIDRs[0] 10.244.1.7/24: has host bits set: 10.244.1.0/24 was probably meant", "write 10.244.1.0/24",
			"node n1: has no usable podCIDR: the plugin's configuration is not written, and pods are not started"},
	},
	problem.NoPodCIDR: {{func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.Direct, refusing{}, []node.Node{listed("n1", "172.30.0.1"), peer}))
	}, "node n1: has no usable podCIDR: the plugin's configuration is not written, and pods are not started", "--allocate-node-cidrs", ""}},
	problem.PodCIDRRoute: {
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, peer}, kernel.UnderlayRoute{Destination: netip.MustParsePrefix("10.244.2.128/25"), Link: "eth0", Gateway: netip.MustParseAddr("172.30.0.9")}))
		}, "node n2: podCIDR 10.244.2.0/24: overlaps with the route 10.244.2.128/25 via 172.30.0.9 dev eth0 of node n1, which is not flatnet's",
			"give node n2 another podCIDR; or if nobody needs it, remove the route (`ip route del 10.244.2.128/25 via 172.30.0.9 dev eth0`) on node n1", ""},
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, peer}, kernel.UnderlayRoute{Destination: netip.MustParsePrefix("10.0.0.0/8"), Link: "eth1"}))
		}, "node n1: podCIDR 10.244.1.0/24: overlaps with the route 10.0.0.0/8 dev eth1 of node n1, which is not flatnet's", "take that network off interface eth1 (`ip addr show dev eth1`)",
			"node n1: has no usable podCIDR: the plugin's configuration is not written, and pods are not started; node n2: podCIDR 10.244.2.0/24"},
	},
	problem.NoOverlay: {
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.VXLAN, refusing{}, []node.Node{listed("n1", "172.30.0.99", "10.244.1.0/24"), far}))
		}, "node n1: addresses [172.30.0.99]: no interface of this node has one of them: the overlay cannot be made", "compare the node's addresses in the source of nodes with `ip addr`", "node n3: podCIDR 10.244.3.0/24"},
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.VXLAN, refusing{}, []node.Node{listed("n1", "10.244.1.0/24"), far}))
		}, "node n1: has no address: the overlay cannot be made", "give the node an address in the source of nodes", "node n3: podCIDR 10.244.3.0/24"},
	},
	// What is in the way of the tunnel is brought about by pkg/fabric's tests.
	problem.VXLANName: {{obstructed(&kernel.Obstacle{Sort: kernel.ErrNameTaken, Link: "flatnet.vx", Type: "bridge", Err: kernel.ErrExists}),
		"node n1: interface flatnet.vx: is of type bridge and not flatnet's, whose VXLAN device is to have this name", "`ip link del flatnet.vx`; or give flatnet's another name: --vxlan-device", underTunnel}},
	problem.VXLANNumber: {{obstructed(&kernel.Obstacle{Sort: kernel.ErrNumberTaken, Link: "vxlan0", Type: "vxlan", Err: kernel.ErrExists}),
		"node n1: VXLAN device vxlan0: has VNI 70 at UDP port 4789, which flatnet.vx is to have: a node has room for one", "`ip link del vxlan0`; or give flatnet another number, the same on all nodes: --vxlan-id, which is 70; another --vxlan-port does as well", underTunnel}},
	problem.VXLANPort: {{obstructed(&kernel.Obstacle{Sort: kernel.ErrPortTaken, Err: unix.EADDRINUSE}),
		"node n1: UDP port 4789: is in use by another program, so that flatnet.vx cannot be brought up", "end it, or give flatnet another port, the same on all nodes: --vxlan-port, which is 4789", underTunnel}},
	problem.RouteTaken: {{func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.Direct, refusing{"ip route add 10.244.2.0/24": kernel.ErrExists}, []node.Node{near, peer}))
	}, "node n2: ip route add 10.244.2.0/24 via 172.30.0.2 dev eth0 proto 70 src 172.30.0.1: somebody else's is there already: file exists", "remove it: `ip route del 10.244.2.0/24`", ""}},
	problem.FabricObject: {{func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.VXLAN, refusing{"ip link add": unix.EOPNOTSUPP, "ip addr": kernel.ErrNoTunnel, "ip neigh": kernel.ErrNoTunnel, "bridge": kernel.ErrNoTunnel, "ip route add 10.244.3.0/24": kernel.ErrNoTunnel}, []node.Node{near, far}))
	}, "node n1: " + tunnelCommand + ": operation not supported", "look at the kernel's log (dmesg)", underTunnel}},
	problem.PeerWithoutAddress: {{func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, listed("n2", "10.244.2.0/24")}))
	}, "node n2: podCIDR 10.244.2.0/24: the node has no address to reach it by", "wait for its address, or give it one in the source of nodes", ""}},
	problem.PeerOverlay: {{func(t *testing.T) []problem.Problem {
		a := planned(t)
		a.shared.Plan = (&fabric.Planner{Config: fabric.Config{Mode: fabric.VXLAN, WithoutOverlay: "it is missing"}}).Plan(near, []node.Node{near, far}, a.shared.Underlay)
		return telling(a)
	}, "node n3: podCIDR 10.244.3.0/24: can be reached through the overlay only, which node n1 does not have", "mend this node's overlay, which has a problem of its own", ""}},
	problem.PeerFamily: {
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.VXLAN, refusing{}, []node.Node{near, listed("n2", "fd00:30::2", "10.244.2.0/24")}))
		}, "node n2: podCIDR 10.244.2.0/24: of the node's addresses [fd00:30::2] none is of the overlay's family: node n1 uses 172.30.0.1", "list addresses of the same family first at all nodes, or give node n2 one of this family", ""},
		{func(t *testing.T) []problem.Problem {
			return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, listed("n2", "172.30.0.2", "fd00:244:2::/64")}))
		}, "node n2: podCIDR fd00:244:2::/64: the node has no address of this family, and fabric direct needs one", "give node n2 such an address, or use --fabric auto or vxlan", ""},
	},
	problem.PeerRoute: {{func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.Direct, refusing{}, []node.Node{near, far}))
	}, "node n3: podCIDR 10.244.3.0/24: node n1 has no route to the node's address 172.31.0.3", "look at `ip route get 172.31.0.3` on node n1; give it a route, or use --fabric auto or vxlan", ""}},
	problem.Probes: {{func(t *testing.T) []problem.Problem {
		a := planned(t)
		a.probing.without = errors.New("probing from 10.244.1.1: opening a raw socket: operation not permitted")
		return telling(a)
	}, "node n1: probes: probing from 10.244.1.1: opening a raw socket: operation not permitted", "run flatnetd as root, with CAP_NET_RAW", ""}},
	problem.PeersLost: {
		{probes(fabric.VXLAN, []node.Node{near, peer, far}, lost, lost),
			"node n1: nodes reached by vxlan: probes of several of them are lost, most likely for one reason", "look at what their ways have in common",
			"node n2: podCIDR 10.244.2.0/24; node n3: podCIDR 10.244.3.0/24"},
	},
	problem.PeerLost: {
		{probes(fabric.VXLAN, []node.Node{near, peer, far}, lost, health.Report{State: health.OK, Answered: true}),
			"node n2: podCIDR 10.244.2.0/24: probes from node n1 are lost, by vxlan to 172.30.0.2: packets do not get there, or nothing comes back",
			"let UDP port 4789 pass between 172.30.0.1 and it", ""},
		{probes(fabric.Direct, []node.Node{near, peer}, lost),
			"node n2: podCIDR 10.244.2.0/24: probes from node n1 are lost, by direct via 172.30.0.2 dev eth0",
			"see whether node n2 runs (`ping 172.30.0.2`); if it does, the network between drops packets with pods' addresses", ""},
		{probes(fabric.Direct, []node.Node{near, far}, health.Report{State: health.Lost, Answered: true, Complaint: "172.30.0.254 says: host unreachable"}),
			"node n3: podCIDR 10.244.3.0/24: probes from node n1 are lost, by direct via 172.30.0.254 dev eth0",
			"172.30.0.254 says: host unreachable; router 172.30.0.254 has to have a route to 10.244.3.0/24", ""},
		{func(t *testing.T) []problem.Problem {
			a := reporting(t, fabric.Direct, []node.Node{near, far}, lost)
			a.joining.planner.Learned = fabric.Learned{netip.MustParsePrefix("10.244.3.0/24"): {netip.MustParseAddr("172.30.0.251"), netip.MustParseAddr("172.30.0.252")}}
			a.shared.Plan = a.joining.planner.Plan(near, a.shared.Accepted, a.shared.Underlay)
			return telling(a)
		}, "node n3: podCIDR 10.244.3.0/24: probes from node n1 are lost, by bgp via 172.30.0.251 and 1 more dev eth0",
			"routers that tell of 10.244.3.0/24 (`flatnetd status bgp`) have to let packets with pods' addresses pass", ""},
		{probes(fabric.VXLAN, []node.Node{near, listed("n2", "172.30.0.2", "10.244.2.0/24", "10.245.2.0/24")}, lost, lost),
			"node n2: podCIDR 10.244.2.0/24: probes from node n1 are lost", "UDP port 4789", "node n2: podCIDR 10.245.2.0/24"},
	},
	problem.PeerLossy: {{probes(fabric.Direct, []node.Node{near, peer}, health.Report{State: health.Lossy, Answered: true}),
		"node n2: podCIDR 10.244.2.0/24: some of the probes from node n1 are lost, by direct via 172.30.0.2 dev eth0", "look at `ip -s link` of both nodes", ""}},
	problem.PeerMTU: {
		{probes(fabric.VXLAN, []node.Node{near, peer}, health.Report{State: health.OK, Answered: true, FullSize: health.FullLost}),
			"node n2: podCIDR 10.244.2.0/24: packets of 1450 bytes from node n1 are lost, by vxlan to 172.30.0.2, and smaller ones are not",
			"let the network take packets of 1500 bytes between 172.30.0.1 and 172.30.0.2 (with vxlan's 50), or set --mtu on all nodes to what it takes, less 50", ""},
		{probes(fabric.Direct, []node.Node{near, peer}, health.Report{State: health.OK, Answered: true, FullSize: health.FullLost}),
			"node n2: podCIDR 10.244.2.0/24: packets of 1500 bytes from node n1 are lost", "let the network take packets of 1500 bytes to 172.30.0.2, or say that they are too large", ""},
	},
	problem.PodsOutside: {{func(t *testing.T) []problem.Problem {
		a := planned(t)
		a.pods.outsiders = []outsider{{netip.MustParseAddr("10.250.0.3"), "shop/web-1"}}
		return telling(a)
	}, "node n1: pods outside of the podCIDRs 10.244.1.0/24: hold 10.250.0.3 (shop/web-1)", "Delete them, so that they are made anew", ""}},
	problem.HostPort: {
		{func(*testing.T) []problem.Problem {
			f := newHostPorts(Config{NodeName: "n1"}, &feature.Shared{})
			has := ports.Mapping{HostPort: 8080, Protocol: "tcp", HostIP: netip.IPv4Unspecified()}
			f.refused = []ports.Refused{{Pod: "shop/db", Err: &ports.Conflict{
				Wanted: ports.Mapping{HostPort: 8080, Protocol: "tcp"}, Has: has, Pod: "shop/web", Leads: netip.MustParseAddrPort("10.244.1.5:80"),
			}}}
			return f.problems()
		}, "node n1: host ports of pod shop/db: host port 8080/tcp is taken by pod shop/web, which has 0.0.0.0:8080/tcp (it leads to 10.244.1.5:80)",
			"delete one of the two pods", ""},
		{func(*testing.T) []problem.Problem {
			f := newHostPorts(Config{NodeName: "n1"}, &feature.Shared{})
			f.hidden = []hiddenPort{{ports.Taken{Mapping: ports.Mapping{HostPort: 30080, Protocol: "tcp", HostIP: netip.MustParseAddr("172.30.0.1")}, Pod: "shop/web"}, "shop/front:http"}}
			return f.problems()
		}, "node n1: host port 172.30.0.1:30080/tcp of pod shop/web: Service shop/front:http has the same port of that address, and Services come first: the pod is not reached there",
			"give the pod another hostPort, or the Service another nodePort", ""},
	},
	problem.SysctlDirectory: {{func(t *testing.T) []problem.Problem {
		return foundBy(t, &host.Keeper{Root: t.TempDir(), Sysctls: readOnlySysctls(t)}, host.Needs{IPv4: true, Underlay: []string{"eth0"}})
	}, "node n1: sysctls: flatnetd may not write them: read-only file system", "named with --sysctl-dir", "node n1: sysctl net.ipv4.ip_forward; node n1: sysctl net.ipv4.conf.eth0.forwarding"}},
	problem.Sysctl: {{func(t *testing.T) []problem.Problem {
		return foundBy(t, &host.Keeper{Root: t.TempDir()}, host.Needs{IPv6: true})
	}, "node n1: sysctl net.ipv6.conf.all.forwarding: is missing instead of 1: the kernel has no such setting", "boot without ipv6.disable=1, or use no IPv6 podCIDRs", ""}},
	problem.ForwardChain: {{func(t *testing.T) []problem.Problem {
		space := netlab.Start(t).Namespace("n1")
		drop := nftables.ChainPolicyDrop
		conn, err := nftables.New(nftables.WithNetNSFd(space.FD()))
		if err != nil {
			t.Fatal(err)
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "mine"})
		conn.AddChain(&nftables.Chain{Table: table, Name: "pass", Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Type: nftables.ChainTypeFilter, Policy: &drop})
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		var all []problem.Problem
		if err := space.Do(func() error {
			all = foundBy(t, &host.Keeper{}, host.Needs{IPv4: true, OwnPodCIDRs: near.PodCIDRs})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}, "node n1: chain inet mine pass: is policy drop instead of accept for 10.244.1.0/24: it may drop what pods send and receive",
		"`nft insert rule inet mine pass ip saddr 10.244.1.0/24 accept && nft insert rule inet mine pass ip daddr 10.244.1.0/24 accept`", ""}},
	problem.ManagerFile: {{func(t *testing.T) []problem.Problem {
		root := t.TempDir()
		write(t, filepath.Join(root, "run/NetworkManager/conf.d"), "a file where the directory belongs")
		return foundBy(t, &host.Keeper{Root: root}, host.Needs{HostInterfacePrefix: "veth"})
	}, "node n1: NetworkManager drop-in /run/NetworkManager/conf.d/flatnet.conf: is unreadable instead of as flatnet needs it: ", "let flatnetd write to the node's /run, or write /run/NetworkManager/conf.d/flatnet.conf by hand:", ""}},
	problem.PluginFile: {{func(t *testing.T) []problem.Problem {
		a := planned(t)
		directory := t.TempDir()
		write(t, filepath.Join(directory, "05-other.conflist"), `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge"}]}`)
		network := install.Network{Name: networkName, PodCIDRs: near.PodCIDRs, MTU: 1500, StateDir: "/run/flatnet"}
		installer := &install.Installer{ConfDir: directory}
		if _, err := installer.Sync(t.Context(), network); err != nil {
			t.Fatal(err)
		}
		for _, f := range installer.Check(network) {
			f.Path = filepath.Base(f.Path)
			a.installation.disk = append(a.installation.disk, f)
		}
		return telling(a)
	}, "node n1: 05-other.conflist: sorts before 10-flatnet.conflist, and the container runtime uses the first", "if it is no longer wanted, rename it: mv ", ""}},
	problem.ServicesRules: {{balanced(balancing{summary: service.Summary{Failure: "nft: Operation not permitted"}}),
		"node n1: rules of Services: nft: Operation not permitted", "`nft list table ip flatnet-services` shows what is there", ""}},
	problem.ServicesFeature: {{balanced(balancing{summary: service.Summary{Refused: []string{"shop/web: session affinity does not work: table ip flatnet-services: no such file"}}}),
		"node n1: rules of Services: shop/web: session affinity does not work: table ip flatnet-services: no such file", "all other Services are served; docs/kernel.md says which kernels", ""}},
	problem.ServicesConflict: {{balanced(balancing{summary: service.Summary{Conflicts: 2}}),
		"node n1: Services: 2 addresses and ports are claimed by more than one Service", "`flatnetd status services` says which has them", ""}},
	problem.PoliciesSource: {{policed(policing{lost: errors.New("watching networkpolicies: no answer since 12:00")}),
		"node n1: source of policies: watching networkpolicies: no answer since 12:00", "the rights of deploy/base/rbac.yaml", ""}},
	problem.PoliciesRules: {{policed(policing{summary: policy.Summary{Failure: "no space left on device"}}),
		"node n1: rules of policies: no space left on device", "`nft list table inet flatnet-policy` shows what is there", ""}},
	problem.PoliciesFeature: {{policed(policing{summary: policy.Summary{Lacks: []policy.Lack{{Object: "policies and IPVS", Reason: "answers are judged", Advice: "`sysctl -w net.ipv4.vs.conntrack=1`"}}}}),
		"node n1: policies and IPVS: answers are judged", "`sysctl -w net.ipv4.vs.conntrack=1`", ""}},
	problem.PolicyFault: {
		{policed(policing{summary: policy.Summary{Faults: []policy.Fault{{Policy: "NetworkPolicy shop/web", Fault: "spec.ingress[0].ports[0].endPort: 1 is below 2"}}}}),
			"node n1: NetworkPolicy shop/web: spec.ingress[0].ports[0].endPort: 1 is below 2", "correct the field that the sentence names", ""},
		{policed(policing{unread: []policy.Unread{{Object: "ClusterNetworkPolicy all", Why: "spec.subject: is empty"}}}),
			"node n1: ClusterNetworkPolicy all: spec.subject: is empty", "correct the field that the sentence names", ""},
	},
	problem.BalancerConfig: {{addressed(addressing{file: errors.New("reading /etc/flatnet/lb.yaml: pools[0].name: \"\" is not a name")}),
		"node n1: --loadbalancer-config: reading /etc/flatnet/lb.yaml: pools[0].name", "correct the key that the sentence names", ""}},
	problem.BalancerSource: {{addressed(addressing{source: errors.New("watching leases: forbidden")}),
		"node n1: source of load balancers: watching leases: forbidden", "rights of deploy/components/loadbalancer", ""}},
	problem.BalancerAddress: {
		{addressed(addressing{waiting: []loadbalancer.Waiting{{Name: "shop/web", Reason: "IPv4: all addresses of pool lan are taken"}}}),
			"node n1: Services of type LoadBalancer without address: 1: shop/web: IPv4: all addresses of pool lan are taken", "enlarge the pool", ""},
		{addressed(addressing{failure: "writing the status of Service shop/web: forbidden"}),
			"node n1: addresses of load balancers: writing the status of Service shop/web: forbidden", "`flatnetd status announcements`", ""},
	},
	problem.AnnounceLease: {{addressed(addressing{lease: errors.New("renewing Lease flatnet/flatnet-announcer-n1: no route to host")}),
		"node n1: Lease flatnet-announcer-n1: renewing Lease flatnet/flatnet-announcer-n1: no route to host", "see to it that the node reaches the API server", ""}},
	problem.AnnounceInterface: {{addressed(addressing{down: []string{"eth1: it is down, or has no carrier"}}),
		"node n1: interface eth1: it is down, or has no carrier", "set it up", ""}},
	problem.AnnounceConflict: {{addressed(addressing{conflicts: []announce.Conflict{{IP: netip.MustParseAddr("192.0.2.1"), Interface: "eth0", MAC: "02:00:00:00:00:01"}}}),
		"node n1: address 192.0.2.1: somebody with the MAC address 02:00:00:00:00:01 at eth0 says to have it", "take the address out of the pool", ""}},
	problem.KubeProxy: {
		{balanced(balancing{traces: []string{"nftables table ip kube-proxy"}, deaf: []deaf{deafAt(problem.NodeHealth, "services-health", ":10256")}}),
			"node n1: kube-proxy: balances Services as well, or has left its rules: nftables table ip kube-proxy", "end kube-proxy on this node and run `kube-proxy --cleanup`. Or run flatnetd without --services", "node n1: --services-health :10256"},
		{balanced(balancing{traces: []string{"nftables table ip kube-proxy"}, deaf: []deaf{deafAt(problem.ProxyMetrics, "services-metrics", "127.0.0.1:10249")}}),
			"node n1: kube-proxy: balances Services as well, or has left its rules: nftables table ip kube-proxy", "run flatnetd without --services", "node n1: --services-metrics 127.0.0.1:10249"},
		{balanced(balancing{traces: []string{"iptables chain KUBE-SERVICES of table nat"}}),
			"node n1: kube-proxy: balances Services as well, or has left its rules: iptables chain KUBE-SERVICES of table nat", "kube-proxy --cleanup", ""},
	},
	problem.ClusterIPRoute: {
		{balanced(balancing{routless: []netip.Addr{netip.MustParseAddr("10.96.0.1")}}),
			"node n1: IPv4 ClusterIPs: the node has no route to 10.96.0.1: pods reach Services, what runs on the node itself does not", "`ip route add 10.96.0.0/12 dev eth0`", ""},
		{balanced(balancing{routless: []netip.Addr{netip.MustParseAddr("fd00:96::1")}}),
			"node n1: IPv6 ClusterIPs: the node has no route to fd00:96::1: pods reach Services, what runs on the node itself does not", "`ip -6 route add fd00:96::/108 dev eth0`", ""},
	},
	problem.ServiceHealth: {{balanced(balancing{summary: service.Summary{Unheard: []string{"172.30.0.1:31000 of shop/web"}}}),
		"node n1: health of Services at 172.30.0.1:31000 of shop/web: flatnetd cannot listen there", "look at `ss -ltnp` for who has the port, or give the Service another healthCheckNodePort", ""}},
	problem.NodeHealth: {{balanced(balancing{deaf: []deaf{deafAt(problem.NodeHealth, "services-health", ":10999")}}),
		"node n1: --services-health :10999: listening: address already in use", "give another --services-health, or an empty one", ""}},
	problem.ProxyMetrics: {{balanced(balancing{deaf: []deaf{deafAt(problem.ProxyMetrics, "services-metrics", "127.0.0.1:10999")}}),
		"node n1: --services-metrics 127.0.0.1:10999: listening: address already in use", "give another --services-metrics, or an empty one", ""}},
	problem.FastPath: {
		{unremembering(func(f *fastPath) { f.failure = errors.New("loading the programs: operation not permitted") }),
			"node n1: loading the programs: operation not permitted", "docs/fastpath.md says what it needs", ""},
		{unremembering(func(f *fastPath) {
			f.done.Skipped = []fastpath.Skipped{{Interface: "eth0", Reason: "adding filter flatnet_look: no space left on device", Failed: true}, {Interface: "eth1", Reason: "it is no Ethernet"}}
		}), "node n1: interface eth0: adding filter flatnet_look: no space left on device", "docs/fastpath.md says what it needs", ""},
	},
}

// unremembering is a fast path that something is wrong with.
func unremembering(change func(*fastPath)) func(*testing.T) []problem.Problem {
	return func(*testing.T) []problem.Problem {
		f := newFastPath(Config{NodeName: "n1"}, &feature.Shared{})
		change(f)
		return problem.Fold(f.problems())
	}
}

func deafAt(kind problem.Kind, flag, address string) deaf {
	return deaf{&standIn{kind: kind, flag: flag, address: address}, errors.New("listening: address already in use")}
}

const (
	tunnelCommand = "ip link add flatnet.vx address 3a:e1:fc:fc:cf:f8 mtu 1450 type vxlan id 70 local 172.30.0.1 dstport 4789 nolearning noudpcsum; ip link set flatnet.vx up addrgenmode none"
	underTunnel   = "node n1: ip addr add 10.244.1.0/32 dev flatnet.vx; node n3: ip neigh add 10.244.3.0 lladdr d2:b5:6d:12:c8:ea dev flatnet.vx nud permanent proto 70; " +
		"node n3: bridge fdb add d2:b5:6d:12:c8:ea dev flatnet.vx dst 172.31.0.3 self permanent; node n3: ip route add 10.244.3.0/24 via 10.244.3.0 dev flatnet.vx proto 70 onlink"
)

// obstructed is an agent whose tunnel cannot be made.
func obstructed(by error) func(*testing.T) []problem.Problem {
	return func(t *testing.T) []problem.Problem {
		return telling(on(t, fabric.VXLAN, refusing{"ip link": by, "ip addr": kernel.ErrNoTunnel, "ip neigh": kernel.ErrNoTunnel, "bridge": kernel.ErrNoTunnel, "ip route add 10.244.3.0/24": kernel.ErrNoTunnel}, []node.Node{near, far}))
	}
}

func policed(b policing) func(*testing.T) []problem.Problem {
	b.node = "n1"
	return func(*testing.T) []problem.Problem { return problem.Fold(b.problems()) }
}

func balanced(b balancing) func(*testing.T) []problem.Problem {
	b.node = "n1"
	return func(*testing.T) []problem.Problem { return problem.Fold(b.problems()) }
}

func addressed(a addressing) func(*testing.T) []problem.Problem {
	a.node = "n1"
	return func(*testing.T) []problem.Problem { return problem.Fold(a.problems()) }
}

// failing ends a run of a task with an error.
func failing(t *feature.Task, err error) { t.End(err, time.Now()) }

// taskExamples are all tasks, each failing.
func taskExamples() (all []example) {
	for i, task := range whole().schedule {
		all = append(all, example{func(*testing.T) []problem.Problem {
			a := whole()
			failing(a.schedule[i], errors.New("doing it: no space left on device"))
			return a.currentProblems()
		}, "node n1: task " + task.Name + ": doing it: no space left on device", "it is tried again by itself", ""})
	}
	return append(all, example{func(t *testing.T) []problem.Problem {
		a := planned(t)
		failing(a.installation.task, errors.New("doing it: no space left on device"))
		// What the verification found that is a problem by itself is none of the task's.
		failing(a.joining.verify, feature.Told{Err: errors.New("objects of the fabric were refused: 3 of them")})
		a.installation.disk = []install.Finding{{Path: "/opt/cni/bin/flatnet", What: "is missing"}}
		return telling(a)
	}, "node n1: task install: doing it: no space left on device", "it is tried again by itself", "node n1: /opt/cni/bin/flatnet"})
}

// Tasks are told apart by their names, and each says what to do where it fails.
func TestEveryTaskHasANameAndAnAdvice(t *testing.T) {
	names := map[string]bool{}
	for _, task := range whole().schedule {
		if task.Name == "" || task.Advice == "" || names[task.Name] {
			t.Errorf("task %q with the advice %q", task.Name, task.Advice)
		}
		names[task.Name] = true
	}
}

// foundBy is an agent whose host was looked at.
func foundBy(t *testing.T, k *host.Keeper, needs host.Needs) []problem.Problem {
	a := planned(t)
	a.host.findings = k.Apply(t.Context(), needs)
	return telling(a)
}

// readOnlySysctls is a directory as /proc/sys is in a container.
func readOnlySysctls(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	write(t, filepath.Join(directory, "net/ipv4/ip_forward"), "0")
	write(t, filepath.Join(directory, "net/ipv4/conf/eth0/forwarding"), "0")
	if err := errors.Join(unix.Mount(directory, directory, "", unix.MS_BIND, ""), unix.Mount("", directory, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	return directory
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Every kind of problem says what is wrong and what to do, and what follows from it
// is no problem of its own. A kind without an example fails.
func TestEveryKindOfProblem(t *testing.T) {
	for kind := range problem.All() {
		t.Run(kind.String(), func(t *testing.T) {
			if len(examples[kind]) == 0 {
				t.Fatal("there is no example of this kind: add one to examples")
			}
			for _, e := range examples[kind] {
				all := e.bring(t)
				if len(all) == 0 {
					t.Fatalf("no problem, want %s", e.want)
				}
				p := all[0]
				if p.Kind() != kind || !strings.HasPrefix(p.String(), e.want) || !strings.Contains(p.Advice(), e.advice) {
					t.Errorf("got\n%s: %s\n\t%s\nwant\n%s: %s\n\t%s", p.Kind(), p, p.Advice(), kind, e.want, e.advice)
				}
				var follows []string
				for _, f := range troubleOf(p).Follows {
					follows = append(follows, problem.Consequence(f.Node, f.Object, f.Reason))
				}
				if got := strings.Join(follows, "; "); got != e.follows {
					t.Errorf("from %s follows\n%s\nwant\n%s", p, got, e.follows)
				}
				if e.follows != "" && len(all) > 1 {
					t.Errorf("more problems: %v", all[1:])
				}
			}
		})
	}
}

// An agent without a problem says so.
func TestNoProblem(t *testing.T) {
	a := planned(t)
	a.shared.Kernel = askKernel(kernelWithout{}, []requirements.Part{requirements.Pods})
	if all := telling(a); len(all) > 0 {
		t.Errorf("%v", all)
	}
}

const onePeer = "asn: 64512\npeers: [{name: tor, address: 172.30.0.250, asn: 64600}]\naccept: {prefixes: [{prefix: 192.0.0.0/8, maxLength: 24}], maximumRoutes: 1}\n"

// speaking are the problems of an agent that speaks BGP by a configuration, in which change
// has happened. CONFIG stands for the file.
func speaking(text string, change func(*routing)) func(*testing.T) []problem.Problem {
	return func(t *testing.T) []problem.Problem {
		path := filepath.Join(t.TempDir(), "bgp.yaml")
		write(t, path, text)
		c := Config{NodeName: "n1", BGPConfig: path, StateDir: t.TempDir()}
		a := newAgent(c, slog.New(slog.DiscardHandler))
		f := newBGP(c, nil, nil, service.NewBook(), a.shared)
		if err := f.open(); err != nil {
			t.Fatal(err)
		}
		a.have([]feature.Feature{f.feature()})
		a.shared.Plan, a.shared.Nodes, a.shared.Accepted = &fabric.Plan{}, []node.Node{near}, []node.Node{near}
		f.file.Read()
		if err := f.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(f)
			f.learn()
		}
		var all []problem.Problem
		for _, p := range a.currentProblems() {
			all = append(all, p.Kind().Of(problem.Facts{Node: p.Node(), Object: strings.ReplaceAll(p.Object(), path, "CONFIG"), Reason: p.Reason(), Advice: p.Advice()}))
		}
		return all
	}
}

// tellingOf has a peer tell of prefixes.
func tellingOf(prefixes ...string) func(*testing.T) []problem.Problem {
	return speaking(onePeer, func(f *routing) {
		f.take(message.Event{Neighbour: "tor", Session: &message.Session{State: "established", Established: true}})
		for _, p := range prefixes {
			f.take(message.Event{Neighbour: "tor", Paths: []message.Path{{Prefix: netip.MustParsePrefix(p), NextHop: netip.MustParseAddr("172.30.0.250")}}})
		}
	})
}
