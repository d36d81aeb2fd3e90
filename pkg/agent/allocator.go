package agent

import (
	"context"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// Usage is how many addresses of one family the node's pods have.
type Usage struct {
	Family  string `json:"family"` // "IPv4" or "IPv6"
	Total   uint64 `json:"total"`  // that can be handed out; the largest uint64 if there are more
	Used    uint64 `json:"used"`
	Cooling uint64 `json:"cooling"` // released, and last in the queue
	Outside uint64 `json:"outside"` // used besides, outside of the podCIDRs
}

// withStore calls f with the addresses that the plugin's configuration has it
// hand out, and with where it keeps them.
func (a *Agent) withStore(f func(*ipam.Store, ipam.Pool) error) error {
	r, err := a.request("STATUS")
	if err != nil {
		return err
	}
	config, _, err := netconf.Parse(r)
	if err != nil {
		return err
	}
	store, err := ipam.Open(ipam.Options{Directory: config.IPAM.DataDirectory, Network: config.Network, Log: a.log})
	if err != nil {
		return err
	}
	defer store.Close()
	return f(store, config.IPAM.Pool)
}

// usages counts the node's addresses, a family an entry.
func (a *Agent) usages(ctx context.Context) (all []Usage, err error) {
	if len(a.network.PodCIDRs) == 0 {
		return nil, nil
	}
	err = a.withStore(func(store *ipam.Store, pool ipam.Pool) error {
		for _, set := range pool {
			u, err := store.Usage(ctx, set)
			if err != nil {
				return err
			}
			family := "IPv4"
			if set[0].First.Is6() {
				family = "IPv6"
			}
			all = append(all, Usage{family, u.Total, u.Used, u.Cooling, a.outside(family)})
		}
		return nil
	})
	return all, err
}

// reservations counts the owners of addresses.
func (a *Agent) reservations(ctx context.Context) (count int, err error) {
	err = a.withStore(func(store *ipam.Store, _ ipam.Pool) error {
		all, err := store.Reservations(ctx)
		count = len(all)
		return err
	})
	return count, err
}
