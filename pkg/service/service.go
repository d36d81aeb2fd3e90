package service

import (
	"net/netip"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/apivalue"
)

// Name identifies a Service in its cluster.
type Name struct{ Namespace, Name string }

// String returns the name as kubectl writes it: namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace and name.
func (n Name) Compare(o Name) int {
	if c := strings.Compare(n.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(n.Name, o.Name)
}

// Protocol is a transport protocol, by its number in the IP header.
type Protocol = apivalue.Protocol

// The protocols of Services.
const (
	TCP  = apivalue.TCP
	UDP  = apivalue.UDP
	SCTP = apivalue.SCTP
)

// protocols are all of them, in the order of text output.
var protocols = [...]Protocol{TCP, UDP, SCTP}

// Service is a Kubernetes Service with the EndpointSlices that belong to it, as
// the network sees them. Addresses of both families are mixed. Nobody may write
// to the slices of a Service that was handed over.
type Service struct {
	Name    Name
	UID     string // of the object: a later one of the same name has another
	Created time.Time
	Ports   []Port
	// Labels are known where the source was told to keep them.
	Labels map[string]string
	// LoadBalancerClass is who gives it addresses; empty where it does not say.
	LoadBalancerClass string

	// ClusterIPs are one or two addresses, one of each family. A family
	// without one is not served.
	ClusterIPs  []netip.Addr
	ExternalIPs []netip.Addr
	// LoadBalancerIPs are those of the status whose ipMode is VIP: what goes
	// there from inside does not have to pass the load balancer.
	LoadBalancerIPs []netip.Addr
	// SourceRanges are the clients that may use the LoadBalancerIPs; none is all.
	SourceRanges []netip.Prefix

	// InternalLocal and ExternalLocal say that what comes by ClusterIP, or by
	// any other address, may only go to endpoints of the same node.
	InternalLocal, ExternalLocal bool
	// Affinity is how long a client stays with its endpoint after its last
	// connection, between a second and a day; 0 is no session affinity.
	Affinity time.Duration
	// HealthCheckPort is where the node says how many endpoints of the Service
	// it has; 0 is nowhere.
	HealthCheckPort uint16

	// Slices are sorted by name.
	Slices []Slice
}

// Port is a port of a Service.
type Port struct {
	Name     string // may be empty if it is the only one
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0: none
}

// Slice is an EndpointSlice: all its endpoints have all its ports.
type Slice struct {
	Name      string
	Ports     []SlicePort
	Endpoints []Endpoint // sorted by address
	// Triggered is when the change that led to this version of the slice
	// happened, by the annotation endpoints.kubernetes.io/last-change-trigger-time;
	// zero where it does not say.
	Triggered time.Time
}

// SlicePort is what a port of the Service, known by name and protocol, is on the
// endpoints of a slice.
type SlicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is an address behind a Service, most often a pod's.
type Endpoint struct {
	Address netip.Addr
	Node    string // where it is; empty where that is not known
	Hints   *Hints // nil: none
	// Ready is the condition that lets traffic in. Serving is the same without
	// regard to whether the pod is being terminated, which is Terminating.
	Ready, Serving, Terminating bool
}

// Hints say for whom an endpoint is meant, where the Service's trafficDistribution,
// or topology aware routing, keeps traffic near.
type Hints struct{ Zones, Nodes []string }
