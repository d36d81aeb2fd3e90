package agent

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// seed notes the routes that a run before has left: they are kept until neighbours have told
// all that they have, or their time is over. The configuration has to be known by then.
func (f *routing) seed() error {
	m := f.recall()
	if m != nil && m.Config != "" {
		f.file.Remember([]byte(m.Config))
	}
	f.file.Read()
	if f.current, _ = f.file.Config(); f.current == nil {
		return nil
	}
	if m != nil {
		f.resume(m.Desired)
	}
	k, err := kernel.NewFabric(f.config.Fabric.Tunnel)
	if err != nil {
		return err
	}
	defer k.Close()
	objects, err := k.List()
	if err != nil {
		return fmt.Errorf("reading the routes of a run before: %w", err)
	}
	for _, o := range objects {
		r, is := o.(kernel.Route)
		if !is || r.Unreachable || r.Table != 0 || r.Link == f.config.Fabric.Tunnel {
			continue
		}
		hops := r.Hops.All()
		if r.Gateway.IsValid() {
			hops = append(hops, kernel.Hop{Gateway: r.Gateway, Link: r.Link})
		}
		var gateways []netip.Addr
		for _, h := range hops {
			if h.Gateway.IsLinkLocalUnicast() {
				h.Gateway = h.Gateway.WithZone(h.Link)
			}
			gateways = append(gateways, h.Gateway)
		}
		f.table.Seed(r.Destination, gateways)
	}
	if f.table.Seeded() {
		f.stale[""] = time.Now().Add(time.Duration(f.current.RestartTime))
	}
	return nil
}
