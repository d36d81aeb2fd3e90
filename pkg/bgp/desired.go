package bgp

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/service"

	"github.com/flatnet-cni/flatnet/pkg/bgp/message"
)

// Desire returns what flatnet-bgp has to do on the node self, which others are peers of
// where there is a mesh.
func (c *Config) Desire(self node.Node, others []node.Node, prefixes []netip.Prefix) Desired {
	d := Desired{
		Global:     Global{ASN: c.ASN, RouterID: c.routerID(self), ListenPort: *c.ListenPort, RestartSeconds: uint32(time.Duration(c.RestartTime) / time.Second)},
		Neighbours: c.neighbours(self, others),
		Announce:   Announcement{Prefixes: prefixes, MED: c.Announce.MED, LocalPref: c.Announce.LocalPref},
	}
	for _, text := range c.Announce.Communities {
		community, _ := message.ParseCommunity(text) // validated
		d.Announce.Communities = append(d.Announce.Communities, community)
	}
	return d
}

func (c *Config) routerID(self node.Node) string {
	if c.RouterID != "" {
		return c.RouterID
	}
	for _, a := range self.Addresses {
		if a.Is4() {
			return a.String()
		}
	}
	sum := sha256.Sum256([]byte("flatnet router " + self.Name))
	// Any number but zero will do, as long as no two nodes have the same.
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(sum[:])|1))).String()
}

func (c *Config) neighbours(self node.Node, others []node.Node) []Neighbour {
	all := []Neighbour{}
	for _, p := range c.Peers {
		if p.selector.Matches(labels.Set(self.Labels)) {
			all = append(all, Neighbour{
				Name: p.Name, Address: p.address, Interface: p.Interface, ASN: p.ASN, Port: p.Port, PasswordFile: p.PasswordFile, Multihop: p.Multihop,
				HoldSeconds: seconds(p.HoldTime), ConnectSeconds: seconds(p.ConnectRetry), Families: p.families, KeepRoutes: p.KeepRoutes,
			})
		}
	}
	if c.Mesh == nil {
		return all
	}
	for _, n := range others {
		if n.Name == self.Name {
			continue
		}
		for _, family := range []Family{IPv4, IPv6} {
			i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return message.FamilyOf(a) == family })
			if i < 0 || !slices.ContainsFunc(self.Addresses, func(a netip.Addr) bool { return message.FamilyOf(a) == family }) {
				continue
			}
			all = append(all, Neighbour{
				Name: "node " + n.Name + " " + string(family), Address: n.Addresses[i], ASN: c.ASN, Port: *c.ListenPort, PasswordFile: c.Mesh.PasswordFile,
				HoldSeconds: seconds(c.Mesh.HoldTime), ConnectSeconds: int(defaultConnectRetry / time.Second), Families: []Family{family},
			})
		}
	}
	return all
}

func seconds(d Duration) int { return int(time.Duration(d) / time.Second) }

// WantsServices reports whether addresses of Services are announced.
func (c *Config) WantsServices() bool { return len(c.Announce.Services) > 0 }

// Announcements are the networks that the node tells its neighbours of, sorted: its
// podCIDRs, and addresses of Services. Those of a Service whose policy is Local are told
// by nodes that have an endpoint of it, and of any other by all nodes while one is ready
// anywhere. A node that is about to go tells of no Service.
func (c *Config) Announcements(self node.Node, podCIDRs []netip.Prefix, services map[service.Name]service.Service) []netip.Prefix {
	told := map[netip.Prefix]bool{}
	if c.Announce.PodCIDRs == nil || *c.Announce.PodCIDRs {
		for _, p := range podCIDRs {
			told[p] = true
		}
	}
	if self.Leaving == "" {
		for _, s := range services {
			c.announceService(self.Name, &s, told)
		}
	}
	return slices.SortedFunc(maps.Keys(told), netip.Prefix.Compare)
}

func (c *Config) announceService(self string, s *service.Service, told map[netip.Prefix]bool) {
	here, anywhere := ready(s, self)
	for _, kind := range c.Announce.Services {
		addresses, local := s.LoadBalancerIPs, s.ExternalLocal
		switch kind {
		case External:
			addresses = s.ExternalIPs
		case Cluster:
			addresses, local = s.ClusterIPs, s.InternalLocal
		}
		if local && !here || !anywhere {
			continue
		}
		for _, a := range addresses {
			length := c.Announce.PrefixLength.IPv4
			if a.Is6() {
				length = c.Announce.PrefixLength.IPv6
			}
			if p, err := a.Prefix(length); err == nil {
				told[p] = true
			}
		}
	}
}

// ready reports whether a Service has an endpoint that is ready, on the node and anywhere.
func ready(s *service.Service, self string) (here, anywhere bool) {
	for _, slice := range s.Slices {
		for _, e := range slice.Endpoints {
			if e.Ready {
				anywhere = true
				here = here || e.Node == self
			}
		}
	}
	return here, anywhere
}
