package loadbalancer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/pkg/apivalue"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Family is one of IP's.
type Family uint8

// The families, as Kubernetes writes them.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns the family as Kubernetes writes it.
func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Service is a Service as far as it matters for its addresses. Nobody writes to one that
// was handed over.
type Service struct {
	Name    service.Name
	UID     string
	Created time.Time
	Version string // resourceVersion

	LoadBalancer bool   // it is of that type
	HasClass     bool   // spec.loadBalancerClass is [Class]
	OtherClass   string // spec.loadBalancerClass, if it is somebody else's

	Labels   map[string]string
	Families []Family // one or two
	// Required says that it is to have an address of each of its families, or none.
	Required bool
	Wanted   []netip.Addr // it asks for these, and no others
	Unread   string       // what it asks for that cannot be read
	Pool     string       // it asks for this pool
	ShareKey string       // with whom it shares
	Ports    []Port
	// Backend is "" where any node may get its connections; else what selects its pods,
	// because only nodes with one of them may.
	Backend string
	// Held are the addresses of its status.
	Held []netip.Addr
}

// Port is one that a Service has at its addresses.
type Port struct {
	Protocol apivalue.Protocol
	Number   uint16
}

// Local reports whether only nodes with an endpoint may get its connections.
func (s *Service) Local() bool { return s.Backend != "" }

// FromService returns what matters of a Service. The answer is false where it neither is
// to have addresses nor has any.
func FromService(o *v1.Service) (*Service, bool) {
	s := &Service{
		Name: service.Name{Namespace: o.Namespace, Name: o.Name}, UID: string(o.UID), Created: o.CreationTimestamp.Time, Version: o.ResourceVersion,
		LoadBalancer: o.Spec.Type == v1.ServiceTypeLoadBalancer && o.DeletionTimestamp == nil,
	}
	for _, i := range o.Status.LoadBalancer.Ingress {
		if a, err := apivalue.ParseAddr(i.IP); err == nil && i.IP != "" {
			s.Held = append(s.Held, a)
		}
	}
	if !s.LoadBalancer {
		return s, len(s.Held) > 0
	}
	if class := o.Spec.LoadBalancerClass; class != nil {
		if s.HasClass = *class == Class; !s.HasClass {
			s.OtherClass = *class
		}
	}
	s.Labels = o.Labels
	for _, f := range o.Spec.IPFamilies {
		switch f {
		case v1.IPv4Protocol:
			s.Families = append(s.Families, IPv4)
		case v1.IPv6Protocol:
			s.Families = append(s.Families, IPv6)
		}
	}
	if len(s.Families) == 0 {
		for _, text := range append(slices.Clone(o.Spec.ClusterIPs), o.Spec.ClusterIP) {
			if a, err := apivalue.ParseAddr(text); err == nil && !slices.Contains(s.Families, familyOf(a)) {
				s.Families = append(s.Families, familyOf(a))
			}
		}
	}
	s.Required = o.Spec.IPFamilyPolicy != nil && *o.Spec.IPFamilyPolicy == v1.IPFamilyPolicyRequireDualStack
	s.want(o)
	s.Pool, s.ShareKey = o.Annotations[AnnotationPool], o.Annotations[AnnotationShare]
	for _, p := range o.Spec.Ports {
		if protocol, known := apivalue.ProtocolOf(p.Protocol); known {
			s.Ports = append(s.Ports, Port{protocol, uint16(p.Port)})
		}
	}
	if o.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		s.Backend = "pods"
		for _, name := range slices.Sorted(maps.Keys(o.Spec.Selector)) {
			s.Backend += "," + name + "=" + o.Spec.Selector[name]
		}
	}
	return s, true
}

// want reads the addresses that a Service asks for.
func (s *Service) want(o *v1.Service) {
	text := o.Annotations[AnnotationIPs]
	field := "annotation " + AnnotationIPs
	if text == "" {
		text, field = o.Spec.LoadBalancerIP, "spec.loadBalancerIP"
	}
	if text == "" {
		return
	}
	for one := range strings.SplitSeq(text, ",") {
		a, err := apivalue.ParseAddr(strings.TrimSpace(one))
		if err != nil || a.Zone() != "" {
			s.Unread = fmt.Sprintf("%s: %q is not an address", field, strings.TrimSpace(one))
			return
		}
		if slices.ContainsFunc(s.Wanted, func(other netip.Addr) bool { return familyOf(other) == familyOf(a) }) {
			s.Unread = fmt.Sprintf("%s: %q has two addresses of %s: one of each family is possible", field, text, familyOf(a))
			return
		}
		s.Wanted = append(s.Wanted, a)
	}
}
