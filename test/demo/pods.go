package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

const (
	pluginName  = "flatnet"
	networkName = "pods"
	podLink     = "eth0" // the interface in every pod
	stateRoot   = "/run/flatnet"
)

// podRoles are the pods of each node; the node's number is added.
var podRoles = []string{"web", "db"}

// configuration is a node's, with its name and its two networks to be filled in.
const configuration = `{
  "cniVersion": "1.1.0",
  "name": "` + networkName + `",
  "plugins": [{
    "type": "` + pluginName + `",
    "stateDir": "%s",
    "ipMasq": true,
    "nonMasqueradeCIDRs": ["10.244.0.0/16", "172.30.0.0/24", "fd00:244::/32", "fd00:30::/64"],
    "ipam": {"ranges": [[{"subnet": "%s"}], [{"subnet": "%s"}]]}
  }]
}`

func (n *node) stateDirectory() string { return filepath.Join(stateRoot, n.name) }

func (n *node) configuration() string {
	return fmt.Sprintf(configuration, n.stateDirectory(), n.subnets[0], n.subnets[1])
}

// containerRuntime executes the plugin on a node, as containerd or CRI-O does.
type containerRuntime struct {
	on   *node
	list *libcni.NetworkConfigList
	cni  *libcni.CNIConfig
}

func newRuntime(n *node, plugins string) (*containerRuntime, error) {
	list, err := libcni.NetworkConfFromBytes([]byte(n.configuration()))
	if err != nil {
		return nil, fmt.Errorf("configuring %s: %w", n.name, err)
	}
	// /run is the process's own, so not even the cache outlives it.
	cache := filepath.Join("/run/cni-cache", n.name)
	return &containerRuntime{on: n, list: list, cni: libcni.NewCNIConfigWithCacheDir([]string{plugins}, cache, nil)}, nil
}

// do calls f on a thread in the node's namespace: libcni forks from the calling
// thread, so that is where the plugin is executed. It returns how long f took.
func (r *containerRuntime) do(f func() error) (time.Duration, error) {
	var took time.Duration
	err := r.on.Do(func() error {
		start := time.Now()
		defer func() { took = time.Since(start) }()
		return f()
	})
	return took, err
}

// pod is a container's network namespace on a node.
type pod struct {
	name  string
	on    *node
	space *netlab.Namespace
	// attached says that ADD was tried, whatever came of it: DEL is due.
	attached bool

	addresses     [2]netip.Addr
	gateways      [2]netip.Addr
	hostInterface string
}

func (p *pod) arguments() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.name, NetNS: p.space.Path, IfName: podLink,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "demo"}, {"K8S_POD_NAME", p.name}},
	}
}

// attach is ADD; it returns how long the runtime waited.
func (p *pod) attach(ctx context.Context) (time.Duration, error) {
	p.attached = true
	r := p.on.runtime
	var result *current.Result
	took, err := r.do(func() error {
		raw, err := r.cni.AddNetworkList(ctx, r.list, p.arguments())
		if err == nil {
			result, err = current.NewResultFromResult(raw)
		}
		return err
	})
	if err == nil {
		err = p.learn(result)
	}
	if err != nil {
		return 0, fmt.Errorf("ADD of %s on %s: %w", p.name, p.on.name, err)
	}
	return took, nil
}

// learn reads the result of ADD.
func (p *pod) learn(result *current.Result) error {
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			p.hostInterface = i.Name
		}
	}
	for _, ip := range result.IPs {
		address, _ := netip.AddrFromSlice(ip.Address.IP)
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		f := 0
		if address.Unmap().Is6() {
			f = 1
		}
		p.addresses[f], p.gateways[f] = address.Unmap(), gateway.Unmap()
	}
	for f, family := range families {
		if !p.on.subnets[f].Contains(p.addresses[f]) {
			return fmt.Errorf("the result's %s address is %v, which is not one of %v", family, p.addresses[f], p.on.subnets[f])
		}
	}
	return nil
}

// check is CHECK.
func (p *pod) check(ctx context.Context) (time.Duration, error) {
	r := p.on.runtime
	took, err := r.do(func() error { return r.cni.CheckNetworkList(ctx, r.list, p.arguments()) })
	if err != nil {
		return 0, fmt.Errorf("CHECK of %s on %s: %w", p.name, p.on.name, err)
	}
	return took, nil
}

// detach is DEL.
func (p *pod) detach(ctx context.Context) (time.Duration, error) {
	r := p.on.runtime
	took, err := r.do(func() error { return r.cni.DelNetworkList(ctx, r.list, p.arguments()) })
	if err != nil {
		return 0, fmt.Errorf("DEL of %s on %s: %w", p.name, p.on.name, err)
	}
	p.attached = false
	return took, nil
}

// makePods makes the pods' namespaces, which have nothing but lo.
func (d *demo) makePods(plugins string) (err error) {
	defer recoverFailure(&err)
	for i, n := range d.nodes {
		if n.runtime, err = newRuntime(n, plugins); err != nil {
			return err
		}
		for _, role := range podRoles {
			name := fmt.Sprintf("%s-%d", role, i+1)
			d.pods = append(d.pods, &pod{name: name, on: n, space: d.lab.Pod(name)})
		}
	}
	return nil
}

// attachPods makes pods on every node and runs ADD for each.
func (d *demo) attachPods(ctx context.Context, plugins string) error {
	if err := d.makePods(plugins); err != nil {
		return err
	}
	d.heading("Pods: ADD")
	d.text("The container runtime executes flatnet (CNI 1.1.0) once for each pod. This is the configuration\n" +
		"of node1. Pods are translated (ipMasq) only on the way out of the cluster's own networks.")
	d.indented(d.nodes[0].configuration())
	rows := [][]string{{"pod", "node", "IPv4", "IPv6", "host interface", "ADD"}}
	for _, p := range d.pods {
		took, err := p.attach(ctx)
		if err != nil {
			return err
		}
		rows = append(rows, []string{
			p.name, p.on.name, p.addresses[0].String(), p.addresses[1].String(), p.hostInterface, milliseconds(took) + " ms",
		})
	}
	d.table(rows)
	d.commands("CNI_PATH=bin ip netns exec node1 cnitool add "+networkName+" /run/netns/web-1", "(the other pods likewise)")
	return nil
}

// checkPods runs CHECK for each pod.
func (d *demo) checkPods(ctx context.Context) error {
	times, err := d.forEach(ctx, (*pod).check)
	if err != nil {
		return err
	}
	d.heading("Pods: CHECK")
	d.text("flatnet compares every interface, address, route and rule of a pod with what ADD has made, and\n" +
		fmt.Sprintf("finds no difference in %d of %d pods (%s).", len(d.pods), len(d.pods), times))
	d.commands("CNI_PATH=bin ip netns exec node1 cnitool check "+networkName+" /run/netns/web-1", "(the other pods likewise)")
	return nil
}

// detachPods runs DEL for each pod.
func (d *demo) detachPods(ctx context.Context) error {
	var err error
	if d.busy, err = d.countAll(); err != nil {
		return err
	}
	times, err := d.forEach(ctx, (*pod).detach)
	if err != nil {
		return err
	}
	d.heading("Pods: DEL")
	d.text(fmt.Sprintf("flatnet has detached %d of %d pods (%s).", len(d.pods), len(d.pods), times))
	d.commands("CNI_PATH=bin ip netns exec node1 cnitool del "+networkName+" /run/netns/web-1", "(the other pods likewise)")
	d.summary = append(d.summary, fmt.Sprintf("%d pods attached, checked and detached", len(d.pods)))
	return nil
}

// forEach calls a verb for every pod and returns a text of how long each took.
func (d *demo) forEach(ctx context.Context, verb func(*pod, context.Context) (time.Duration, error)) (string, error) {
	var times []string
	for _, p := range d.pods {
		took, err := verb(p, ctx)
		if err != nil {
			return "", err
		}
		times = append(times, milliseconds(took))
	}
	return strings.Join(times, ", ") + " ms", nil
}
