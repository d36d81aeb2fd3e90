package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Front is where clients find a port of a Service.
type Front struct {
	Address  netip.Addr
	Protocol Protocol
	Port     uint16
}

// String returns the front as nft writes it in a key: 10.96.0.1 . tcp . 80.
func (f Front) String() string { return fmt.Sprintf("%s . %s . %d", f.Address, f.Protocol, f.Port) }

// Compare orders fronts by family, address, protocol and port.
func (f Front) Compare(o Front) int {
	if c := f.Address.Compare(o.Address); c != 0 {
		return c
	}
	if f.Protocol != o.Protocol {
		return int(f.Protocol) - int(o.Protocol)
	}
	return int(f.Port) - int(o.Port)
}

// Kind says what sort of address a front has. Where two Services claim one front,
// the lesser kind has it: nobody can take away a ClusterIP by an external IP.
type Kind uint8

// The kinds of fronts.
const (
	ClusterIP Kind = iota
	NodePort
	LoadBalancerIP
	ExternalIP
)

// kindNames are the kinds in words. Nobody writes to them.
var kindNames = []string{"ClusterIP", "NodePort", "load-balancer IP", "external IP"}

func (k Kind) String() string { return kindNames[k] }

// PortName identifies a port of a Service; its protocol is the same for all of
// one number and name.
type PortName struct {
	Service  Name
	Port     string
	Protocol Protocol
}

// String returns namespace/name, and the port's name if it has one.
func (p PortName) String() string {
	if p.Port == "" {
		return p.Service.String()
	}
	return p.Service.String() + ":" + p.Port
}

// Compare orders names of ports.
func (p PortName) Compare(o PortName) int {
	if c := p.Service.Compare(o.Service); c != 0 {
		return c
	}
	if c := strings.Compare(p.Port, o.Port); c != 0 {
		return c
	}
	return int(p.Protocol) - int(o.Protocol)
}

// Target is where what comes to a front goes. It never changes.
type Target struct {
	Name PortName
	Kind Kind
	*choice
	// localOnly says that policy Local applies, for external fronts to what
	// comes from outside.
	localOnly bool
	sources   []netip.Prefix // who may use it; none is all
	affinity  time.Duration  // 0: none
	id        uint32         // with affinity, the mark of connections; see [affinityID]
}

// targetsOf calls yield for every front of a Service with its target.
func targetsOf(s *Service, n *Node, choice func(portOf) *choice, id func(PortName) uint32, yield func(Front, *Target)) {
	for _, p := range s.Ports {
		for _, f := range families {
			i := slices.IndexFunc(s.ClusterIPs, f.owns)
			if i < 0 || !n.has(f) {
				continue
			}
			t := Target{Name: PortName{s.Name, p.Name, p.Protocol}, Kind: ClusterIP, choice: choice(portOf{p.Name, p.Protocol, f}), localOnly: s.InternalLocal}
			if s.Affinity > 0 {
				t.affinity, t.id = s.Affinity, id(t.Name)
			}
			each := func(kind Kind, addresses []netip.Addr, port uint16, sources []netip.Prefix) {
				t := t // one for all addresses of the kind
				t.Kind, t.sources = kind, sources
				if kind != ClusterIP {
					t.localOnly = s.ExternalLocal
				}
				for _, a := range addresses {
					if f.owns(a) {
						yield(Front{a, p.Protocol, port}, &t)
					}
				}
			}
			each(ClusterIP, s.ClusterIPs[i:i+1], p.Port, nil)
			if p.NodePort != 0 {
				each(NodePort, n.NodePortAddresses, p.NodePort, nil)
			}
			if len(s.LoadBalancerIPs) > 0 {
				each(LoadBalancerIP, s.LoadBalancerIPs, p.Port, sourcesOf(s, n, f))
			}
			if len(s.ExternalIPs) > 0 {
				each(ExternalIP, s.ExternalIPs, p.Port, nil)
			}
		}
	}
}

// sourcesOf returns who may use the load-balancer IPs of a family; none is all.
func sourcesOf(s *Service, n *Node, f family) []netip.Prefix {
	var allowed []netip.Prefix
	for _, p := range s.SourceRanges {
		if f.owns(p.Addr()) {
			if p.Bits() == 0 {
				return nil
			}
			allowed = append(allowed, p)
		}
	}
	// A node that has the load balancer's address as one of its own uses it as
	// the source when it talks to it.
	if slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool {
		return slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(a) })
	}) {
		for _, a := range s.LoadBalancerIPs {
			if f.owns(a) {
				allowed = append(allowed, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return disjoint(allowed)
}

// Verdicts on what comes to a front, besides going to endpoints.
const (
	verdictRefuse = "goto refuse"       // no endpoint anywhere: reject at once
	verdictDrop   = "drop"              // policy Local, and the endpoints are elsewhere
	verdictSource = "goto by-source"    // look at who it is first
	verdictLocal  = "goto policy-local" // depends on where it comes from
)

// dispatch is the verdict of map services.
func (t *Target) dispatch() string {
	if len(t.sources) > 0 {
		return verdictSource
	}
	return t.admitted()
}

// admitted is the verdict once the source is known to be allowed.
func (t *Target) admitted() string {
	switch {
	case !t.exists():
		return verdictRefuse
	case t.Kind == ClusterIP && t.localOnly:
		return t.outside()
	case t.localOnly:
		return verdictLocal
	}
	return t.inside()
}

// inside is the verdict for what is not subject to policy Local: everything where
// that is not the policy, and else what this node and its own pods send to
// external fronts, which simulates going out to the load balancer and in again.
func (t *Target) inside() string {
	if t.cluster.size() == 0 {
		return verdictRefuse
	}
	return t.balance(false).verdict()
}

// outside is the verdict for what is subject to policy Local.
func (t *Target) outside() string {
	switch {
	case t.local.size() > 0:
		return t.balance(true).verdict()
	case t.exists():
		return verdictDrop
	}
	return verdictRefuse
}

// split reports whether the verdict depends on where the packet comes from.
func (t *Target) split() bool { return t.localOnly && t.Kind != ClusterIP && t.exists() }

// usesCluster and usesLocal report which of the lists can be reached.
func (t *Target) usesCluster() bool {
	return t.cluster.size() > 0 && (!t.localOnly || t.Kind != ClusterIP)
}
func (t *Target) usesLocal() bool { return t.local.size() > 0 && t.localOnly }

// balance is the chain that picks one of the endpoints.
func (t *Target) balance(local bool) chainRef {
	c := chainRef{kind: balanceChain, protocol: t.Name.Protocol, n: t.cluster.size(), local: local}
	if local {
		c.n = t.local.size()
	}
	if t.affinity > 0 {
		c.kind = stickyChain
	}
	return c
}

// clusterUsed and localUsed are the lists that can be reached.
func (t *Target) clusterUsed() *roster {
	if t != nil && t.usesCluster() {
		return t.cluster
	}
	return nil
}
func (t *Target) localUsed() *roster {
	if t != nil && t.usesLocal() {
		return t.local
	}
	return nil
}

// numbered returns the list that an index of map endpoints belongs to, and the number
// in it: that for policy Cluster has the indices from 0 up, that for policy Local those
// from [localOffset] up.
func (t *Target) numbered(index uint32) (list *roster, number uint32) {
	if index >= localOffset {
		return t.localUsed(), index - localOffset
	}
	return t.clusterUsed(), index
}

// endpoint returns the endpoint with an index of map endpoints.
func (t *Target) endpoint(index uint32) (at netip.AddrPort, is bool) {
	list, number := t.numbered(index)
	if number < uint32(list.size()) {
		return list.at(uint16(number)), true
	}
	return at, false
}

// equal reports whether nothing about two targets differs.
func (t *Target) equal(o *Target) bool {
	return t.Name == o.Name && t.Kind == o.Kind && t.localOnly == o.localOnly && t.affinity == o.affinity && t.id == o.id &&
		t.choice.equal(o.choice) && slices.Equal(t.sources, o.sources)
}

// valid reports whether a client may stay with an endpoint.
func (t *Target) valid(at netip.AddrPort) bool {
	return t.clusterUsed().has(at) || t.localUsed().has(at)
}
