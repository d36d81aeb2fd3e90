package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Pod is a network namespace that is attached to its node.
type Pod struct {
	*netlab.Namespace
	Name          string
	Space         string // its namespace in Kubernetes
	UID           string // "" is not told
	Node          *Node
	Addresses     []netip.Addr
	HostInterface string
	MTU           int // of eth0 in the pod, in bytes
	// Took is how long the runtime waited for the last verb.
	Took time.Duration

	// Capabilities are what the runtime gives to plugins that can do with it.
	Capabilities map[string]any

	conflist string
}

// Pod makes a pod as a container runtime does: ADD by the configuration and
// with the binaries that flatnetd installed.
func (n *Node) Pod(name string) *Pod { return n.PodWith(name, n.Conflist()) }

// PodWith is Pod by another configuration, a file.
func (n *Node) PodWith(name, conflist string) *Pod {
	p := &Pod{Namespace: n.cluster.Lab.Pod(n.Name + "-" + name), Name: name, Space: "test", Node: n, conflist: conflist}
	if err := p.Add(); err != nil {
		n.fail("%w", err)
	}
	return p
}

// Prepare makes a pod that is not attached yet.
func (n *Node) Prepare(namespace, name string) *Pod {
	return &Pod{Namespace: n.cluster.Lab.Pod(n.Name + "-" + namespace + "-" + name), Name: name, Space: namespace, Node: n, conflist: n.Conflist()}
}

// Add attaches the pod.
func (p *Pod) Add() error {
	err := p.do(func(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		raw, err := cni.AddNetworkList(ctx, list, p.arguments())
		if err != nil {
			return err
		}
		result, err := current.NewResultFromResult(raw)
		if err != nil {
			return err
		}
		p.learn(result)
		return nil
	})
	if err != nil {
		return fmt.Errorf("ADD of pod %s: %w", p.Name, err)
	}
	return nil
}

// Check is the verb CHECK.
func (p *Pod) Check() error {
	err := p.do(func(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		return cni.CheckNetworkList(ctx, list, p.arguments())
	})
	if err != nil {
		return fmt.Errorf("CHECK of pod %s: %w", p.Name, err)
	}
	return nil
}

// Delete detaches the pod. Its namespace stays until the lab is closed.
func (p *Pod) Delete() {
	err := p.do(func(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
		return cni.DelNetworkList(ctx, list, p.arguments())
	})
	if err != nil {
		p.Node.fail("DEL of pod %s: %w", p.Name, err)
	}
}

// Address returns the pod's address of a family; the zero Addr if it has none.
func (p *Pod) Address(ipv6 bool) netip.Addr {
	for _, a := range p.Addresses {
		if a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

func (p *Pod) arguments() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.Namespace.Name, NetNS: p.Path, IfName: "eth0",
		CapabilityArgs: p.Capabilities,
		Args:           [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Space}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_UID", p.UID}},
	}
}

// do calls f on a thread in the node's namespace: libcni forks from the calling
// thread, so that is where the plugin is executed.
func (p *Pod) do(f func(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList) error) error {
	list, err := libcni.NetworkConfFromFile(p.conflist)
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{p.Node.BinDir}, filepath.Join(p.Node.Directory, "cache"), nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Node.Do(func() error {
		begin := time.Now()
		defer func() { p.Took = time.Since(begin) }()
		return f(ctx, cni, list)
	})
}

// learn reads the result of ADD.
func (p *Pod) learn(result *current.Result) {
	p.Addresses = nil
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			p.HostInterface = i.Name
		} else {
			p.MTU = i.Mtu
		}
	}
	for _, ip := range result.IPs {
		address, _ := netip.AddrFromSlice(ip.Address.IP)
		p.Addresses = append(p.Addresses, address.Unmap())
	}
}
