package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/feature"
	"github.com/flatnet-cni/flatnet/pkg/install"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// networkName is that of the configuration that is installed.
const networkName = "flatnet"

// hostInterfacePrefix is the plugin's default.
const hostInterfacePrefix = "veth"

// ownNetwork is the network that the plugin is configured with, and that pods are
// attached to. Features that have to do with the plugin begin with it.
type ownNetwork struct {
	*feature.Shared
	config Config
}

// network has no podCIDRs until the fabric is planned.
func (o ownNetwork) network() install.Network {
	n := install.Network{Name: networkName, StateDir: o.config.StateDir, Clsact: o.Filters}
	if o.config.Policies && !o.Kernel.Lacks(requirements.Policies) {
		n.Policies = o.config.PoliciesFile
	}
	if device, _ := o.podDevice(); device != kernel.Veth {
		n.PodDevice = device
	}
	if o.Plan != nil {
		n.PodCIDRs, n.MTU = o.Plan.OwnPodCIDRs, o.Plan.PodMTU
	}
	return n
}

// followed is a network that a feature has gone by.
type followed struct {
	network install.Network
	any     bool
}

// change reports whether a network is another one, and remembers it.
func (f *followed) change(n install.Network) bool {
	same := f.any && equalNetworks(f.network, n)
	*f = followed{n, true}
	return !same
}

func equalNetworks(a, b install.Network) bool {
	return a.Name == b.Name && a.MTU == b.MTU && a.StateDir == b.StateDir && a.Policies == b.Policies && a.Clsact == b.Clsact && a.PodDevice == b.PodDevice && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}

// request returns what a container runtime would execute the plugin with.
func (o ownNetwork) request(verb string) (*cni.Request, error) {
	network := o.network()
	if len(network.PodCIDRs) == 0 {
		return nil, feature.ErrNotYet
	}
	raw, err := install.Conflist(network)
	if err != nil {
		return nil, err
	}
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("reading own configuration: %w", err)
	}
	const version = "1.1.0" // the first with GC
	config := list.Plugins[0]
	config["name"], config["cniVersion"] = network.Name, version
	if raw, err = json.Marshal(config); err != nil {
		return nil, fmt.Errorf("encoding configuration: %w", err)
	}
	return &cni.Request{Command: verb, Path: o.config.BinDir, Version: version, Network: network.Name, Config: raw}, nil
}

// withStore calls f with the addresses that the plugin's configuration has it
// hand out, and with where it keeps them.
func (o ownNetwork) withStore(f func(*ipam.Store, ipam.Pool) error) error {
	r, err := o.request("STATUS")
	if err != nil {
		return err
	}
	config, _, err := netconf.Parse(r)
	if err != nil {
		return err
	}
	store, err := ipam.Open(ipam.Options{Directory: config.IPAM.DataDirectory, Network: config.Network, Log: o.Log})
	if err != nil {
		return err
	}
	defer store.Close()
	return f(store, config.IPAM.Pool)
}

// Usage is how many addresses of one family the node's pods have.
type Usage struct {
	Family  string `json:"family"` // "IPv4" or "IPv6"
	Total   uint64 `json:"total"`  // that can be handed out; the largest uint64 if there are more
	Used    uint64 `json:"used"`
	Cooling uint64 `json:"cooling"` // released, and last in the queue
	Outside uint64 `json:"outside"` // used besides, outside of the podCIDRs
}

// usages counts the node's addresses, a family an entry.
func (o ownNetwork) usages(ctx context.Context, outsiders []outsider) (all []Usage, err error) {
	err = o.withStore(func(store *ipam.Store, pool ipam.Pool) error {
		for _, set := range pool {
			u, err := store.Usage(ctx, set)
			if err != nil {
				return err
			}
			family := "IPv4"
			if set[0].First.Is6() {
				family = "IPv6"
			}
			all = append(all, Usage{family, u.Total, u.Used, u.Cooling, outside(outsiders, family)})
		}
		return nil
	})
	return all, err
}

// reservations counts the owners of addresses.
func (o ownNetwork) reservations(ctx context.Context) (count int, err error) {
	err = o.withStore(func(store *ipam.Store, _ ipam.Pool) error {
		all, err := store.Reservations(ctx)
		count = len(all)
		return err
	})
	return count, err
}
