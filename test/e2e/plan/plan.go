// Package plan says what a cluster consists of: machines, subnets, addresses
// and networks, computed from what the user asked for. It does nothing.
package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Options are what a user chooses.
type Options struct {
	// Workers is the number of nodes beside the control plane, 1 to 50.
	Workers int `json:"workers"`
	// Family is dual, ipv4 or ipv6: of nodes, pods and Services.
	Family string `json:"family"`
	// Proxy is kube-proxy's mode, nftables or iptables; none starts no kube-proxy.
	Proxy string `json:"proxy"`
	// Subnets is the number of networks that the nodes are spread over, 1 or 2; a
	// router joins two.
	Subnets int `json:"subnets"`
	// CNI is flatnet, or reference: ptp and host-local, and static routes.
	CNI string `json:"cni"`
	// Fabric is flatnet's: auto, direct or vxlan.
	Fabric string `json:"fabric"`
	// Datapath is flatnet's: auto, ebpf or kernel.
	Datapath string `json:"datapath"`
	// Kubernetes is the minor release that the cluster consists of: "1.37".
	Kubernetes string `json:"kubernetes"`
	// Containerd is the release of the container runtime, or nothing for what the
	// machine, or kind's nodes, have: "1.7".
	Containerd string `json:"containerd,omitempty"`
	// Node is what nodes are like: debian, with Debian's container runtime, or
	// kind, with that of kind's nodes, and their settings.
	Node string `json:"node"`
}

// Validate says which option is wrong, and what it may be.
func (o Options) Validate() error {
	if o.Workers < 1 || o.Workers > 50 {
		return fmt.Errorf("-workers %d: between 1 and 50 are possible", o.Workers)
	}
	if o.Subnets < 1 || o.Subnets > 2 {
		return fmt.Errorf("-subnets %d: 1 or 2 are possible", o.Subnets)
	}
	for _, choice := range []struct {
		name, value string
		of          []string
	}{
		{"family", o.Family, []string{"dual", "ipv4", "ipv6"}},
		{"proxy", o.Proxy, []string{"nftables", "iptables", "none"}},
		{"cni", o.CNI, []string{"flatnet", "reference"}},
		{"fabric", o.Fabric, []string{"auto", "direct", "vxlan"}},
		{"datapath", o.Datapath, []string{"auto", "ebpf", "kernel"}},
		{"node", o.Node, []string{"debian", "kind"}},
	} {
		if !slices.Contains(choice.of, choice.value) {
			return fmt.Errorf("-%s %s: possible are %s", choice.name, choice.value, strings.Join(choice.of, ", "))
		}
	}
	if o.Subnets == 2 && o.CNI == "flatnet" && o.Fabric == "direct" {
		return fmt.Errorf("-subnets 2 -fabric direct: the router between the subnets knows no routes to pods; use auto or vxlan")
	}
	if o.Subnets == 2 && o.CNI == "reference" {
		return fmt.Errorf("-subnets 2 -cni reference: the router between the subnets knows no routes to pods; use one subnet")
	}
	return nil
}

// Subnet is one network between machines: a bridge.
type Subnet struct {
	Bridge string
	// Gateways are the addresses of the router, with the subnet's prefix length.
	Gateways []netip.Prefix
}

// Machine is a node of the cluster.
type Machine struct {
	Name         string
	ControlPlane bool
	// Subnet is the index of the subnet that it is on.
	Subnet int
	// Addresses are the machine's, with the subnet's prefix length, IPv4 first.
	Addresses []netip.Prefix
}

// Cluster is what there is to be.
type Cluster struct {
	Options  Options
	Subnets  []Subnet
	Machines []Machine // the control plane first
	// Pods and Services are the networks of the cluster, IPv4 first.
	Pods, Services []netip.Prefix
	// APIService and DNS are ClusterIPs, IPv4 first.
	APIService, DNS []netip.Addr
}

// New computes the cluster that the options ask for, which are valid.
func New(o Options) Cluster {
	c := Cluster{Options: o}
	v4, v6 := o.Family != "ipv6", o.Family != "ipv4"
	if v4 {
		c.Pods = append(c.Pods, netip.MustParsePrefix("10.244.0.0/16"))
		c.Services = append(c.Services, netip.MustParsePrefix("10.96.0.0/16"))
		c.APIService = append(c.APIService, netip.MustParseAddr("10.96.0.1"))
		c.DNS = append(c.DNS, netip.MustParseAddr("10.96.0.10"))
	}
	if v6 {
		c.Pods = append(c.Pods, netip.MustParsePrefix("fd00:244::/48"))
		c.Services = append(c.Services, netip.MustParsePrefix("fd00:96::/112"))
		c.APIService = append(c.APIService, netip.MustParseAddr("fd00:96::1"))
		c.DNS = append(c.DNS, netip.MustParseAddr("fd00:96::a"))
	}
	for i := range o.Subnets {
		c.Subnets = append(c.Subnets, Subnet{Bridge: fmt.Sprintf("subnet%d", i), Gateways: addresses(v4, v6, i, 254)})
	}
	for i := range o.Workers + 1 {
		m := Machine{Name: fmt.Sprintf("worker%d", i), Subnet: i % o.Subnets}
		if i == 0 {
			m.Name, m.ControlPlane = "control-plane", true
		}
		m.Addresses = addresses(v4, v6, m.Subnet, i+1)
		c.Machines = append(c.Machines, m)
	}
	return c
}

// addresses are those of a host on a subnet.
func addresses(v4, v6 bool, subnet, host int) (all []netip.Prefix) {
	if v4 {
		all = append(all, netip.MustParsePrefix(fmt.Sprintf("172.30.%d.%d/24", subnet, host)))
	}
	if v6 {
		all = append(all, netip.MustParsePrefix(fmt.Sprintf("fd00:30:%x::%x/64", subnet, host)))
	}
	return all
}

// Machine finds one by name.
func (c Cluster) Machine(name string) (Machine, bool) {
	i := slices.IndexFunc(c.Machines, func(m Machine) bool { return m.Name == name })
	if i < 0 {
		return Machine{}, false
	}
	return c.Machines[i], true
}

// Tunnelled is whether what one machine sends to pods of another goes through
// flatnet's overlay.
func (c Cluster) Tunnelled(from, to Machine) bool {
	if c.Options.CNI != "flatnet" || from.Name == to.Name {
		return false
	}
	return c.Options.Fabric == "vxlan" || c.Options.Fabric == "auto" && from.Subnet != to.Subnet
}

// API is the address of the control plane that all others use.
func (c Cluster) API() netip.Addr { return c.Machines[0].Addresses[0].Addr() }

// APIPort is where kube-apiserver listens.
const APIPort = 6443

// APIServer is the URL of the API server inside of the cluster.
func (c Cluster) APIServer() string {
	return "https://" + netip.AddrPortFrom(c.API(), APIPort).String()
}

// Zone names the failure domain of a machine. Upstream's tests of zones want
// two.
func (c Cluster) Zone(m Machine) string {
	i := slices.IndexFunc(c.Machines, func(other Machine) bool { return other.Name == m.Name })
	return fmt.Sprintf("zone-%d", i%2)
}

// Join writes values with commas between them, as flags of Kubernetes want them.
func Join[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ",")
}

// Hosts are the machine's addresses without prefix lengths.
func (m Machine) Hosts() (all []netip.Addr) {
	for _, a := range m.Addresses {
		all = append(all, a.Addr())
	}
	return all
}
