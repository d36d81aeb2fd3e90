package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// conflistName is the name of the configuration's file. Runtimes take the
// lexically first one.
const conflistName = "10-flatnet.conflist"

// pluginType is the CNI plugin type by which a configuration is known as
// flatnet's.
const pluginType = "flatnet"

// cniVersion is the newest that containerd 1.6 reads. What
// 1.1.0 adds, STATUS and GC, flatnetd does for its node itself.
const cniVersion = "1.0.0"

// Network is what a node's configuration is made of.
type Network struct {
	// Name of the network, "flatnet". Reservations and attachments are kept by
	// it: it must not change while the node has pods.
	Name string
	// PodCIDRs are the node's own, all of them, at least one, without host bits
	// and not overlapping. The family of the first is the pods' primary one.
	PodCIDRs []netip.Prefix
	// MTU of the pods' interfaces in bytes, 68 to 65535; 0 leaves it to the
	// plugin, which takes the uplink's.
	MTU int
	// StateDir is where the plugin keeps what it has to remember, an absolute
	// path; "" stands for the plugin's default, /run/flatnet.
	StateDir string
	// PodDevice is what the interfaces of new pods are; "" leaves it to the plugin, which
	// takes veth.
	PodDevice kernel.Device
	// Policies is the file from which the plugin reads in which namespaces pods
	// begin closed, an absolute path; "" for a node without policies.
	Policies string
	// Clsact has the plugin make this qdisc at pods' host interfaces, for filters.
	Clsact bool
}

// list and the types below are the JSON form (CNI SPEC.md, section 1), with
// the keys in this order.
type list struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Plugins    []plugin `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	MTU          int             `json:"mtu,omitempty"`
	PodDevice    kernel.Device   `json:"podDevice,omitempty"`
	StateDir     string          `json:"stateDir,omitempty"`
	Policies     string          `json:"policies,omitempty"`
	Clsact       bool            `json:"clsact,omitempty"`
	LogLevel     string          `json:"logLevel"`
	IPAM         *ipamSection    `json:"ipam,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
}

// logLevel has the plugin log what becomes of a pod though its ADD succeeds, and nothing
// where all is well: that it stays closed because flatnetd is away, or that a port of the
// node leads nowhere.
const logLevel = "warn"

type ipamSection struct {
	Ranges [][]subnet `json:"ranges"`
}

type subnet struct {
	Subnet netip.Prefix `json:"subnet"`
}

// Conflist returns the network's configuration as it is written to the disk,
// indented JSON and a newline. Equal networks give equal bytes. It fails where
// the plugin would not accept the result, and names the field.
//
// A pod gets one address out of each set of ranges; so all podCIDRs of a
// family are one set, the primary family's first. There is no ipMasq: what
// leaves the cluster is masqueraded by flatnetd.
//
// There is no other plugin: flatnet gives ports of the node, and limits rates, itself.
func Conflist(n Network) ([]byte, error) {
	if err := n.validate(); err != nil {
		return nil, err
	}
	flatnet := plugin{
		Type: pluginType, MTU: n.MTU, PodDevice: n.PodDevice, Policies: n.Policies, Clsact: n.Clsact, LogLevel: logLevel, IPAM: &ipamSection{Ranges: sets(n.PodCIDRs)},
		Capabilities: map[string]bool{"portMappings": true, "bandwidth": true},
	}
	if n.StateDir != "" && filepath.Clean(n.StateDir) != netconf.DefaultStateDirectory {
		flatnet.StateDir = n.StateDir
	}
	if err := accepted(n.Name, flatnet); err != nil {
		return nil, err
	}
	l := list{CNIVersion: cniVersion, Name: n.Name, Plugins: []plugin{flatnet}}
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding network %s: %w", n.Name, err)
	}
	return append(text, '\n'), nil
}

// validate checks what the JSON form would hide from the plugin.
func (n Network) validate() error {
	if err := utils.ValidateNetworkName(n.Name); err != nil {
		return fmt.Errorf("invalid name %q of the network: %w", n.Name, typeless(err))
	}
	if len(n.PodCIDRs) == 0 {
		return errors.New("network " + n.Name + " has no podCIDRs")
	}
	for i, p := range n.PodCIDRs {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("invalid podCIDRs[%d] %s: must be an IPv4 or IPv6 network without host bits", i, p)
		}
	}
	return nil
}

// typeless returns libcni's error as a plain one: a nil *types.Error would be
// no nil error.
func typeless(err *types.Error) error {
	return errors.New(err.Msg)
}

// sets returns one set of ranges a family, in the order in which the families
// come first.
func sets(prefixes []netip.Prefix) [][]subnet {
	var all [][]subnet
	place := map[bool]int{} // is IPv4 → index in all
	for _, p := range prefixes {
		at, known := place[p.Addr().Is4()]
		if !known {
			at = len(all)
			place[p.Addr().Is4()] = at
			all = append(all, nil)
		}
		all[at] = append(all[at], subnet{p})
	}
	return all
}

// accepted has the plugin's own reader look at a configuration. That is why this
// package imports netconf: nothing that every ADD would refuse may be written.
func accepted(network string, p plugin) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encoding network %s: %w", network, err)
	}
	_, _, err = netconf.Parse(&cni.Request{Command: "ADD", Version: cniVersion, Network: network, Config: raw})
	if err != nil {
		return fmt.Errorf("configuring network %s: %w", network, err)
	}
	return nil
}
