// Package loadbalancer gives addresses to Services of type LoadBalancer, out of pools
// that the administrator names: which address a Service has is in its status, and
// nowhere else. One of all agents does it, the one that has the Lease.
package loadbalancer

import (
	"math/big"
	"net/netip"
	"slices"
)

// Class is the spec.loadBalancerClass of the Services that get addresses.
const Class = "flatnet.io/loadbalancer"

// Annotations of Services.
const (
	// AnnotationIPs asks for these addresses, separated by commas.
	AnnotationIPs = "flatnet.io/loadbalancer-ips"
	// AnnotationPool asks for addresses of a pool.
	AnnotationPool = "flatnet.io/loadbalancer-pool"
	// AnnotationShare lets Services with the same value have the same address.
	AnnotationShare = "flatnet.io/allow-shared-ip"
)

// Config is what the file says.
type Config struct {
	// DefaultClass gives addresses also to Services without spec.loadBalancerClass.
	DefaultClass bool
	Pools        []Pool
}

// Pool is a set of addresses, and whom they are for.
type Pool struct {
	Name   string
	Ranges []Range
	// Namespaces and Selector, labels, say which Services get addresses of the pool;
	// none is all.
	Namespaces []string
	Selector   map[string]string
	// AutoAssign gives addresses to Services that do not ask for the pool, or for one of
	// its addresses.
	AutoAssign bool
	// Interfaces are where one of the nodes answers for the pool's addresses (ARP, NDP);
	// none is nowhere.
	Interfaces []string
	// WithoutLease is what a node does that cannot renew its Lease.
	WithoutLease WithoutLease
}

// WithoutLease is when a node that cannot renew its Lease stops to answer for addresses.
type WithoutLease string

const (
	// Together goes on for as long as all nodes hear each other, none of which can.
	Together WithoutLease = "together"
	// Stop stops at once.
	Stop WithoutLease = "stop"
	// Answer goes on until another node is heard that answers.
	Answer WithoutLease = "answer"
)

// Range is all addresses from the first to the last.
type Range struct{ From, To netip.Addr }

// Has reports whether an address is in the range.
func (r Range) Has(a netip.Addr) bool {
	return a.Is4() == r.From.Is4() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// Size is how many addresses the range has.
func (r Range) Size() float64 {
	number := func(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
	n, _ := new(big.Float).SetInt(new(big.Int).Sub(number(r.To), number(r.From))).Float64()
	return n + 1
}

// String returns the range as the file has it.
func (r Range) String() string { return r.From.String() + "-" + r.To.String() }

// Has reports whether an address is in the pool.
func (p *Pool) Has(a netip.Addr) bool {
	return slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.Has(a) })
}

// hasFamily reports whether the pool has addresses of a family.
func (p *Pool) hasFamily(f Family) bool {
	return slices.ContainsFunc(p.Ranges, func(r Range) bool { return familyOf(r.From) == f })
}

// Admits reports whether a Service may have addresses of the pool.
func (p *Pool) Admits(s *Service) bool {
	if len(p.Namespaces) > 0 && !slices.Contains(p.Namespaces, s.Name.Namespace) {
		return false
	}
	for name, value := range p.Selector {
		if has, is := s.Labels[name]; !is || has != value {
			return false
		}
	}
	return true
}

// Pool returns the pool that an address is in, nil if it is in none.
func (c *Config) Pool(a netip.Addr) *Pool {
	for i := range c.Pools {
		if c.Pools[i].Has(a) {
			return &c.Pools[i]
		}
	}
	return nil
}

// Interfaces are all that some pool names, sorted.
func (c *Config) Interfaces() (all []string) {
	for _, p := range c.Pools {
		all = append(all, p.Interfaces...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Ours reports whether a Service gets addresses.
func (c *Config) Ours(s *Service) bool {
	if !s.LoadBalancer || s.OtherClass != "" {
		return false
	}
	return s.HasClass || c.DefaultClass
}
