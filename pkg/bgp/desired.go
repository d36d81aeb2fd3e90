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
func (c *Config) Desire(self node.Node, others []node.Node, podCIDRs []netip.Prefix, services map[service.Name]service.Service) Desired {
	d := Desired{
		Global:     Global{ASN: c.ASN, RouterID: c.routerID(self), ListenPort: *c.ListenPort, RestartSeconds: uint32(time.Duration(c.RestartTime) / time.Second)},
		Neighbours: c.neighbours(self, others),
	}
	own := map[string]*Announce{}
	for i := range c.Peers {
		if c.Peers[i].Announce != nil {
			own[c.Peers[i].Name] = c.Peers[i].Announce
		}
	}
	all := c.Announce.announcement(self, podCIDRs, services)
	for _, n := range d.Neighbours {
		if a := own[n.Name]; a != nil {
			one := a.announcement(self, podCIDRs, services)
			one.Name, one.To = n.Name, []string{n.Name}
			d.Announce = append(d.Announce, one)
		} else {
			all.To = append(all.To, n.Name)
		}
	}
	d.Announce = append(d.Announce, all)
	return d
}

func (a *Announce) announcement(self node.Node, podCIDRs []netip.Prefix, services map[service.Name]service.Service) Announcement {
	told := Announcement{Prefixes: a.prefixes(self, podCIDRs, services), MED: a.MED, LocalPref: a.LocalPref}
	for _, text := range a.Communities {
		community, _ := message.ParseCommunity(text) // validated
		told.Communities = append(told.Communities, community)
	}
	return told
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

// WantsServices reports whether addresses of Services are announced, to anybody.
func (c *Config) WantsServices() bool {
	return len(c.Announce.Services) > 0 || slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Announce != nil && len(p.Announce.Services) > 0 })
}

// WantsPods reports whether podCIDRs are announced, to anybody.
func (c *Config) WantsPods() bool {
	return c.Announce.podCIDRs() || slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Announce != nil && p.Announce.podCIDRs() })
}

func (a *Announce) podCIDRs() bool { return a.PodCIDRs == nil || *a.PodCIDRs }

// prefixes are the networks that the node tells of, sorted: its podCIDRs, and addresses
// of Services. Those of a Service whose policy is Local are told by nodes that have an
// endpoint of it, and of any other by all nodes while one is ready anywhere. A node that is
// about to go tells of no Service.
func (a *Announce) prefixes(self node.Node, podCIDRs []netip.Prefix, services map[service.Name]service.Service) []netip.Prefix {
	told := map[netip.Prefix]bool{}
	if a.podCIDRs() {
		for _, p := range podCIDRs {
			told[p] = true
		}
	}
	if self.Leaving == "" && len(a.Services) > 0 {
		for _, s := range services {
			a.tellService(self.Name, &s, told)
		}
	}
	return slices.SortedFunc(maps.Keys(told), netip.Prefix.Compare)
}

func (a *Announce) tellService(self string, s *service.Service, told map[netip.Prefix]bool) {
	here, anywhere := ready(s, self)
	for _, chosen := range a.Services {
		if !chosen.has(s) {
			continue
		}
		addresses, local := s.LoadBalancerIPs, s.ExternalLocal
		switch chosen.Kind {
		case External:
			addresses = s.ExternalIPs
		case Cluster:
			addresses, local = s.ClusterIPs, s.InternalLocal
		}
		if local && !here || !anywhere {
			continue
		}
		for _, address := range addresses {
			length := a.PrefixLength.IPv4
			if address.Is6() {
				length = a.PrefixLength.IPv6
			}
			if p, err := address.Prefix(length); err == nil {
				told[p] = true
			}
		}
	}
}

// has reports whether a Service is one of those whose addresses are meant.
func (s *ServiceAddresses) has(of *service.Service) bool {
	return (s.LoadBalancerClass == "" || s.LoadBalancerClass == of.LoadBalancerClass) && s.selector.Matches(labels.Set(of.Labels))
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
