// Package node knows who the nodes of the cluster are: it reads them from a
// file or from the Kubernetes API, and judges which of what they claim can be
// joined into one network.
package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Node is a machine of the cluster as the network sees it. Sources share the
// slices of the nodes that they deliver: nobody may write to them.
type Node struct {
	// Name is unique in the cluster.
	Name string
	// Addresses are those by which other nodes reach this one, the primary
	// one first. There may be none yet.
	Addresses []netip.Addr
	// PodCIDRs are the prefixes of the node's pods, any number of either
	// family. There may be none yet.
	PodCIDRs []netip.Prefix
	// Zone is where the node is, as topology-aware Services go by it: the label
	// topology.kubernetes.io/zone. Empty if it is not said.
	Zone string
	// Created is when the node joined the cluster; zero where the source
	// does not know.
	Created time.Time
	// Leaving says why the node is about to go, so that load balancers should look
	// for another one; empty while it stays. It is known of the own node only, and
	// where nodes come from Kubernetes.
	Leaving string
	// Unfit says why the node is not to answer for addresses of load balancers: it
	// leaves, is cordoned, or not ready. It is known where Leaving is.
	Unfit string
	// Away says why another node may not answer, and nobody need wonder: it is not
	// ready, or about to go. It is known where nodes come from Kubernetes. What is
	// joined does not depend on it.
	Away string
	// Labels are known of the own node, and of all where nodes come from a file.
	Labels map[string]string
	// Malformed are entries that the source could not read. Each keeps its
	// place in Addresses or PodCIDRs as a zero value, so that the index in a
	// Refusal's Field is that of the source. Their Node is this one.
	Malformed []Refusal
}

// Joined returns the node without what it does not depend on how it is joined to others:
// who compares that does not begin anew for a label or a taint.
func (n Node) Joined() Node {
	n.Leaving, n.Unfit, n.Away, n.Labels = "", "", "", nil
	return n
}

// Equal reports whether nothing about the node differs.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.Zone == o.Zone && n.Leaving == o.Leaving && n.Unfit == o.Unfit && n.Away == o.Away && maps.Equal(n.Labels, o.Labels) && n.Created.Equal(o.Created) &&
		slices.Equal(n.Addresses, o.Addresses) &&
		slices.Equal(n.PodCIDRs, o.PodCIDRs) &&
		slices.Equal(n.Malformed, o.Malformed)
}

// Source tells who the nodes are.
type Source interface {
	// Run calls deliver with the complete list, sorted by name and never
	// empty, when it is first known and after every change, one call at a
	// time, until ctx ends; it then returns nil. An error means that the
	// source cannot work at all.
	Run(ctx context.Context, deliver func([]Node)) error
	// Check returns nil while the source is healthy, else what is wrong. It
	// may be called at any time, from any goroutine. The list delivered last
	// stays good while it returns an error.
	Check() error
}
