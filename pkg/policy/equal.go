package policy

import (
	"maps"
	"reflect"
	"slices"
)

// Most of what the API server tells of a pod, its conditions and those of its containers,
// is of no concern here: only what differs is told further.

func (p *Pod) equal(o *Pod) bool {
	return p.Name == o.Name && p.UID == o.UID && p.Node == o.Node && p.Created.Equal(o.Created) &&
		maps.Equal(p.Labels, o.Labels) && slices.Equal(p.Addresses, o.Addresses) && slices.Equal(p.Ports, o.Ports)
}

func (n *Namespace) equal(o *Namespace) bool {
	return n.Name == o.Name && maps.Equal(n.Labels, o.Labels)
}

func (n *Node) equal(o *Node) bool {
	return n.Name == o.Name && maps.Equal(n.Labels, o.Labels) && slices.Equal(n.Addresses, o.Addresses)
}

// equal compares all of it: policies change rarely.
func (p *Policy) equal(o *Policy) bool { return reflect.DeepEqual(p, o) }
