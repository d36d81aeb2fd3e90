package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// home is where the second disk is mounted.
const home = "/flatnet"

// nodes is the list that every flatnetd reads. n1 is the machine itself; n2 is on its
// link, n3 behind a router, so that both ways to other nodes' pods are in use.
const nodes = `nodes:
- {name: n1, addresses: [172.30.0.1, "fd00:30::1"], podCIDRs: [10.244.1.0/24, "fd00:244:1::/64"]}
- {name: n2, addresses: [172.30.0.2, "fd00:30::2"], podCIDRs: [10.244.2.0/24, "fd00:244:2::/64"]}
- {name: n3, addresses: [172.31.0.3, "fd00:31::3"], podCIDRs: [10.244.3.0/24, "fd00:244:3::/64"]}
`

const kubeconfig = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:6443"}}]
contexts: [{name: c, context: {cluster: c, user: c}}]
users: [{name: c, user: {}}]
current-context: c
`

const flatnetdUnit = `[Unit]
Description=flatnetd
RequiresMountsFor=/flatnet

[Service]
ExecStart=/flatnet/flatnetd --node-name n1 --nodes-file /flatnet/nodes.yaml --services --kubeconfig /flatnet/kubeconfig --plugins-dir /flatnet
StandardOutput=append:/flatnet/n1.log
StandardError=append:/flatnet/n1.log
Restart=always

[Install]
WantedBy=multi-user.target
`

// lab is the machine as node n1, and what is around it.
type lab struct {
	self, lan, router, n2, n3 *netlab.Namespace
	api                       *apiserver.Server
	boot                      int // of the machine, from 1
	pace                      rhythm
	pods                      map[string]*pod
	paths                     []*path
	spaces                    map[*netlab.Namespace]*space
}

// pod is a network namespace that the plugin has attached.
type pod struct {
	*netlab.Namespace
	node      string
	ports     bool // has a host port
	addresses []netip.Addr
}

// command runs a line of words; its error has what it printed.
func command(line string) error {
	_, err := output(line)
	return err
}

func output(line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func all(lines ...string) error {
	for _, line := range lines {
		if err := command(line); err != nil {
			return err
		}
	}
	return nil
}

// newLab makes everything around the machine; its own eth0 is not up yet.
func newLab(boot int) (*lab, error) {
	l := &lab{boot: boot, pods: map[string]*pod{}, spaces: map[*netlab.Namespace]*space{}}
	var err error
	if l.self, err = netlab.Current(); err != nil {
		return nil, err
	}
	for name, at := range map[string]**netlab.Namespace{"lan": &l.lan, "router": &l.router, "n2": &l.n2, "n3": &l.n3} {
		if *at, err = netlab.NewNamespace(name); err != nil {
			return nil, err
		}
	}
	err = all(
		// The machine's second card is the other end of its own wire.
		"ip link set eth1 netns lan",
		"ip -n lan link add name lan0 type bridge mcast_snooping 0", "ip -n lan link set lan0 up", "ip -n lan link set eth1 master lan0 up",
		"ip -n lan link add p2 type veth peer name eth0 netns n2", "ip -n lan link set p2 master lan0 up",
		"ip -n lan link add pr type veth peer name eth0 netns router", "ip -n lan link set pr master lan0 up",
		"ip -n n3 link add eth0 type veth peer name eth1 netns router",
		"ip -n n2 link set eth0 up", "ip -n n3 link set eth0 up", "ip -n router link set eth0 up", "ip -n router link set eth1 up",
		"ip -n n2 addr add 172.30.0.2/24 dev eth0", "ip -n n2 addr add fd00:30::2/64 dev eth0 nodad",
		"ip -n n3 addr add 172.31.0.3/24 dev eth0", "ip -n n3 addr add fd00:31::3/64 dev eth0 nodad",
		"ip -n router addr add 172.30.0.254/24 dev eth0", "ip -n router addr add fd00:30::fe/64 dev eth0 nodad",
		"ip -n router addr add 172.31.0.254/24 dev eth1", "ip -n router addr add fd00:31::fe/64 dev eth1 nodad",
		"ip -n router addr add 198.51.100.1/32 dev lo", "ip -n router addr add 2001:db8:51::1/128 dev lo nodad",
		"ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0",
		"ip -n n2 route add default via 172.30.0.254", "ip -n n2 -6 route add default via fd00:30::fe",
		"ip -n n3 route add default via 172.31.0.254", "ip -n n3 -6 route add default via fd00:31::fe",
	)
	return l, err
}

// underlay configures eth0 as an administrator without a manager does.
func underlay() error {
	return all(
		"ip link set eth0 up", "ip addr replace 172.30.0.1/24 dev eth0", "ip addr replace fd00:30::1/64 dev eth0 nodad",
		"ip route replace default via 172.30.0.254", "ip -6 route replace default via fd00:30::fe",
	)
}

// files are what flatnetds need.
func files() error {
	for path, content := range map[string]string{
		home + "/nodes.yaml": nodes, home + "/kubeconfig": kubeconfig, "/etc/systemd/system/flatnetd.service": flatnetdUnit,
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return all("mkdir -p /opt/cni/bin /etc/cni/net.d", "systemctl daemon-reload")
}

// startOthers starts flatnetd in the namespaces of the other nodes, where it sees no
// manager of this machine.
func (l *lab) startOthers() error {
	for _, n := range []*netlab.Namespace{l.n2, l.n3} {
		d := filepath.Join(home, n.Name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		log, err := os.Create(filepath.Join(home, n.Name+".log"))
		if err != nil {
			return err
		}
		script := fmt.Sprintf("mount --make-rprivate / && mkdir -p %[1]s/netns && mount --rbind /run/netns %[1]s/netns && mount -t tmpfs t /run && mkdir /run/netns && mount --move %[1]s/netns /run/netns && "+
			"exec %[2]s/flatnetd --node-name %[3]s --nodes-file %[2]s/nodes.yaml --state-dir %[1]s/state --plugins-dir %[2]s --cni-bin-dir %[1]s/bin --cni-conf-dir %[1]s/net.d", d, home, n.Name)
		cmd := exec.Command("unshare", "-m", "sh", "-c", script)
		cmd.Stdout, cmd.Stderr = log, log
		if err := n.Do(cmd.Start); err != nil {
			return err
		}
		go cmd.Wait()
	}
	return nil
}

// until waits for something to be right.
func until(what string, limit time.Duration, f func() error) error {
	if _, err := pace.Await(limit, f); err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}

func confDir(node string) string {
	if node == "n1" {
		return "/etc/cni/net.d"
	}
	return filepath.Join(home, node, "net.d")
}

func binDir(node string) string {
	if node == "n1" {
		return "/opt/cni/bin"
	}
	return filepath.Join(home, node, "bin")
}

// awaitInstalled waits until flatnetd has written the configuration of a node.
func awaitInstalled(node string) error {
	return until("configuration of "+node, 90*time.Second, func() error {
		_, err := os.Stat(filepath.Join(confDir(node), "10-flatnet.conflist"))
		return err
	})
}

// addPod attaches a pod as a container runtime does, and serves in it.
func (l *lab) addPod(name, node string, ports bool) error {
	n, err := netlab.NewNamespace("pod-" + name)
	if err != nil {
		return err
	}
	p := &pod{Namespace: n, node: node, ports: ports}
	l.pods[name] = p
	if err := l.add(p); err != nil {
		return fmt.Errorf("ADD of pod %s: %w", name, err)
	}
	for _, a := range p.addresses {
		if err := serve(n, netip.AddrPortFrom(a, 8080)); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) space(node string) *netlab.Namespace {
	return map[string]*netlab.Namespace{"n1": l.self, "n2": l.n2, "n3": l.n3}[node]
}

func (l *lab) cni(p *pod, f func(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf) error) error {
	list, err := libcni.NetworkConfFromFile(filepath.Join(confDir(p.node), "10-flatnet.conflist"))
	if err != nil {
		return err
	}
	arguments := &libcni.RuntimeConf{ContainerID: fmt.Sprintf("%s-%d", p.Name, l.boot), NetNS: p.Path, IfName: "eth0"}
	if p.ports {
		arguments.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8081, "containerPort": 8080, "protocol": "tcp"}}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return l.space(p.node).Do(func() error {
		return f(ctx, libcni.NewCNIConfigWithCacheDir([]string{binDir(p.node)}, filepath.Join(home, "cache"), nil), list, arguments)
	})
}

func (l *lab) add(p *pod) error {
	return l.cni(p, func(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList, arguments *libcni.RuntimeConf) error {
		raw, err := cni.AddNetworkList(ctx, list, arguments)
		if err != nil {
			return err
		}
		result, err := current.NewResultFromResult(raw)
		if err != nil {
			return err
		}
		p.addresses = nil
		for _, ip := range result.IPs {
			a, _ := netip.AddrFromSlice(ip.Address.IP)
			p.addresses = append(p.addresses, a.Unmap())
		}
		return nil
	})
}

func (l *lab) del(p *pod) error {
	return l.cni(p, func(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList, arguments *libcni.RuntimeConf) error {
		return cni.DelNetworkList(ctx, list, arguments)
	})
}

// startAPI makes an API server answer that knows a Service of each family whose
// endpoint is the pod of n2.
func (l *lab) startAPI() error {
	l.api = apiserver.New()
	l.api.Protobuf, l.api.Streams = true, true
	listener, err := net.Listen("tcp", "127.0.0.1:6443")
	if err != nil {
		return err
	}
	l.api.Serve(listener)
	return nil
}

// services lets the Services lead to a pod.
func (l *lab) services(to *pod) {
	for i, a := range to.addresses {
		name, family, clusterIP := "web4", v1.IPv4Protocol, "10.96.0.10"
		kind := discovery.AddressTypeIPv4
		if a.Is6() {
			name, family, clusterIP, kind = "web6", v1.IPv6Protocol, "fd00:96::10", discovery.AddressTypeIPv6
		}
		port, portName, protocol, yes := int32(8080), "", v1.ProtocolTCP, true
		l.api.Put(&discovery.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-1", Labels: map[string]string{discovery.LabelServiceName: name}},
			AddressType: kind, Ports: []discovery.EndpointPort{{Name: &portName, Protocol: &protocol, Port: &port}},
			Endpoints: []discovery.Endpoint{{Addresses: []string{a.String()}, NodeName: &to.node, Conditions: discovery.EndpointConditions{Ready: &yes, Serving: &yes}}},
		})
		o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		o.Spec.Type, o.Spec.ClusterIP, o.Spec.ClusterIPs, o.Spec.IPFamilies = v1.ServiceTypeNodePort, clusterIP, []string{clusterIP}, []v1.IPFamily{family}
		o.Spec.Ports = []v1.ServicePort{{Protocol: protocol, Port: 80, NodePort: 30080 + int32(i)}}
		l.api.Put(o)
	}
}

// makePaths lists what is probed.
func (l *lab) makePaths() error {
	for _, n := range []*netlab.Namespace{l.self, l.router, l.n2, l.pods["a"].Namespace, l.pods["b"].Namespace} {
		if l.spaces[n] == nil {
			l.spaces[n] = newSpace(n)
		}
	}
	// Whatever happens on this one, happens to the emulated machine as a whole.
	own := netip.MustParseAddrPort("127.0.0.1:8070")
	if err := serve(l.self, own); err != nil {
		return err
	}
	l.paths = []*path{{name: "machine", from: l.spaces[l.self], to: own}}
	for i, v := range []string{"4", "6"} {
		outside, n1, n3, clusterIP := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("172.31.0.3"), netip.MustParseAddr("10.96.0.10")
		if v == "6" {
			outside, n1, n3, clusterIP = netip.MustParseAddr("2001:db8:51::1"), netip.MustParseAddr("fd00:30::1"), netip.MustParseAddr("fd00:31::3"), netip.MustParseAddr("fd00:96::10")
		}
		if err := serve(l.router, netip.AddrPortFrom(outside, 8080)); err != nil {
			return err
		}
		if err := serve(l.n3, netip.AddrPortFrom(n3, 8080)); err != nil {
			return err
		}
		address := func(pod string) netip.Addr { return l.pods[pod].addresses[i] }
		add := func(name string, from *netlab.Namespace, to netip.Addr, port uint16, source netip.Addr) {
			l.paths = append(l.paths, &path{name: name + v, from: l.spaces[from], to: netip.AddrPortFrom(to, port), source: source})
		}
		a, b := l.pods["a"].Namespace, l.pods["b"].Namespace
		add("pod-pod", a, address("b"), 8080, address("a"))
		add("pod-direct", a, address("c"), 8080, address("a"))
		add("pod-vxlan", a, address("d"), 8080, address("a"))
		add("pod-node3", a, n3, 8080, address("a"))
		add("pod-outside", a, outside, 8080, n1)
		add("pod-service", b, clusterIP, 80, address("b"))
		add("node-service", l.self, clusterIP, 80, netip.Addr{})
		add("nodeport", l.router, n1, 30080+uint16(i), netip.Addr{})
		add("hostport", l.n2, n1, 8081, netip.Addr{})
	}
	return nil
}
