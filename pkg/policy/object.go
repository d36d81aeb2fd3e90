package policy

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/apivalue"
)

// Name is that of an object. Of one that is in no namespace it has none.
type Name struct{ Namespace, Name string }

func (n Name) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// Pod is a pod of the cluster that policies may be about: it has addresses of its
// own (no hostNetwork), or will have, and has not run to its end.
type Pod struct {
	Name      Name
	UID       string
	Labels    labels.Set
	Addresses []netip.Addr // none before the API server knows some
	Ports     []NamedPort  // of its containers, those with a name
	Node      string       // "" before it is scheduled
	Created   time.Time
}

// NamedPort is a container's port that policies may name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Namespace is one of the cluster's.
type Namespace struct {
	Name   string
	Labels labels.Set
}

// Node is one of the cluster's, by its addresses.
type Node struct {
	Name      string
	Labels    labels.Set
	Addresses []netip.Addr // all that its object has, of whatever type, in order
}

// Protocol is one that policies know of, by its number.
type Protocol = apivalue.Protocol

// The protocols with ports.
const (
	TCP  = apivalue.TCP
	UDP  = apivalue.UDP
	SCTP = apivalue.SCTP
)

// Tier is when a policy is asked. What one tier decides, no later one is asked about.
type Tier uint8

// The tiers, in their order.
const (
	Admin    Tier = iota // ClusterNetworkPolicy
	Network              // NetworkPolicy
	Baseline             // ClusterNetworkPolicy
)

func (t Tier) String() string { return [...]string{"Admin", "NetworkPolicy", "Baseline"}[t] }

// Policy is what a NetworkPolicy or a ClusterNetworkPolicy says. Nobody writes to it
// once it is told.
type Policy struct {
	Name     Name // without a namespace it is a ClusterNetworkPolicy
	Tier     Tier
	Priority int32 // of the tiers Admin and Baseline: the lower is asked first; then by name
	Subject  Selector
	// Isolates says in which directions a NetworkPolicy refuses what none allows. The
	// rules of others refuse by themselves.
	Isolates [2]bool
	Rules    [2][]Rule // by direction
	// Faults are what is wrong with the object, a sentence each. The rest of it is in
	// force; what cannot be understood allows nothing. (So a rule of a
	// ClusterNetworkPolicy that denies, or passes, and is not understood is one that
	// denies everything. A rule that accepts may have no peer left, or no port: it
	// matches nothing.)
	Faults []string
}

// Direction is one in which policies are about a pod's connections.
type Direction uint8

// The directions, as indices.
const (
	Ingress Direction = iota // to the pod
	Egress                   // from the pod
)

// Directions are both.
var Directions = [...]Direction{Ingress, Egress}

func (d Direction) String() string { return [...]string{"ingress", "egress"}[d] }

// Selector chooses pods: in a namespace or in all that match, by their labels.
type Selector struct {
	Namespace  string          // the only one; "" for those of Namespaces
	Namespaces labels.Selector // looked at where Namespace is ""; never nil then
	Pods       labels.Selector // never nil
}

// Action is what a rule says of what it matches.
type Action uint8

// The actions. A NetworkPolicy's rules all accept.
const (
	Accept Action = iota
	Deny
	Pass // to the next tier
)

func (a Action) String() string { return [...]string{"accept", "deny", "pass"}[a] }

// Rule is about connections from peers, or to them.
type Rule struct {
	Name   string // of the rule, if it has one
	Action Action
	// AnyPeer matches everybody, pods or not; else one of Peers, Blocks and Nodes has to
	// match.
	AnyPeer bool
	Peers   []Selector
	Blocks  []Block
	Nodes   []labels.Selector // by the labels of nodes, for their addresses
	// AnyPort matches every protocol, those without ports too; else one of Ports has
	// to match.
	AnyPort bool
	Ports   []Port
}

// Block is a network but for parts of it, none of another family.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Port is one or more ports of a protocol, at the destination.
type Port struct {
	Protocol    Protocol
	Name        string // of the destination pod's; then the numbers are not looked at
	First, Last uint16 // 0 to 65535 for all
}

// Batch is what has changed of the cluster's objects. Nil is for one that is gone.
type Batch struct {
	Pods       map[Name]*Pod
	Namespaces map[string]*Namespace
	Policies   map[PolicyKey]*Policy
	Nodes      map[string]*Node
}

// PolicyKey tells policies of both kinds apart.
type PolicyKey struct {
	Cluster bool // a ClusterNetworkPolicy
	Name    Name
}

func (k PolicyKey) String() string {
	if k.Cluster {
		return "ClusterNetworkPolicy " + k.Name.String()
	}
	return "NetworkPolicy " + k.Name.String()
}

// Source tells of the objects of a cluster.
type Source interface {
	// Changed has an element when Take has something to return.
	Changed() <-chan struct{}
	// Take returns what has changed since the last call, all of it the first time. It
	// returns an empty Batch while not everything is known: the policies, and, where
	// there is one of these, the namespaces and pods, and the nodes where one names some.
	Take() Batch
	// Known reports whether everything is known.
	Known() bool
	// Check returns nil while the source is healthy, else what is wrong, and since
	// when. What was taken stays good while it returns an error.
	Check() error
}
