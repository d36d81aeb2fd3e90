package service

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"github.com/flatnet-cni/flatnet/pkg/apivalue"
)

// These labels keep a Service, or an EndpointSlice, from being balanced here.
const (
	// labelOtherProxy says that somebody else balances it.
	labelOtherProxy = "service.kubernetes.io/service-proxy-name"
	// labelHeadless is put on headless Services' EndpointSlices.
	labelHeadless = v1.IsHeadlessService
)

// Selector is the label selector of the Services and EndpointSlices that are of
// concern here, for list and watch.
const Selector = "!" + labelOtherProxy + ",!" + labelHeadless

func excluded(labels map[string]string) bool {
	_, other := labels[labelOtherProxy]
	_, headless := labels[labelHeadless]
	return other || headless
}

// defaultAffinity is what the API server writes where the user does not say.
const defaultAffinity = 3 * time.Hour

// FromService returns what the network needs of a Service, without endpoints. The
// answer is false where there is nothing to balance: a headless Service, one of
// type ExternalName, or one that is left to another proxy. Text that cannot be
// read is left out, as kube-proxy does.
func FromService(o *v1.Service) (Service, bool) {
	s := Service{Name: Name{o.Namespace, o.Name}, UID: string(o.UID), Created: o.CreationTimestamp.Time}
	if excluded(o.Labels) || o.Spec.Type == v1.ServiceTypeExternalName {
		return s, false
	}
	clusterIPs := o.Spec.ClusterIPs
	if len(clusterIPs) == 0 {
		clusterIPs = []string{o.Spec.ClusterIP} // before Kubernetes 1.20
	}
	if s.ClusterIPs = addresses(clusterIPs); len(s.ClusterIPs) == 0 {
		return s, false // none yet, or "None"
	}
	s.Labels = o.Labels
	if o.Spec.LoadBalancerClass != nil {
		s.LoadBalancerClass = unique.Make(*o.Spec.LoadBalancerClass).Value()
	}
	s.ExternalIPs = addresses(o.Spec.ExternalIPs)
	for _, i := range o.Status.LoadBalancer.Ingress {
		if i.IPMode == nil || *i.IPMode == v1.LoadBalancerIPModeVIP {
			s.LoadBalancerIPs = append(s.LoadBalancerIPs, addresses([]string{i.IP})...)
		}
	}
	s.SourceRanges = ranges(o.Spec.LoadBalancerSourceRanges)
	for _, p := range o.Spec.Ports {
		protocol, ok := apivalue.ProtocolOf(p.Protocol)
		if !ok || p.Port <= 0 {
			continue
		}
		s.Ports = append(s.Ports, Port{unique.Make(p.Name).Value(), protocol, uint16(p.Port), uint16(p.NodePort)})
	}
	policy := o.Spec.InternalTrafficPolicy
	s.InternalLocal = policy != nil && *policy == v1.ServiceInternalTrafficPolicyLocal
	external := o.Spec.Type == v1.ServiceTypeNodePort || o.Spec.Type == v1.ServiceTypeLoadBalancer || len(o.Spec.ExternalIPs) > 0
	s.ExternalLocal = external && o.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
	if s.ExternalLocal && o.Spec.Type == v1.ServiceTypeLoadBalancer {
		s.HealthCheckPort = uint16(o.Spec.HealthCheckNodePort)
	}
	if o.Spec.SessionAffinity == v1.ServiceAffinityClientIP {
		s.Affinity = defaultAffinity
		if c := o.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			s.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	return s, true
}

// FromSlice returns what the network needs of an EndpointSlice, and the Service
// that it belongs to. The answer is false for one of a headless Service, of
// another proxy, of no Service, or of domain names.
func FromSlice(o *discovery.EndpointSlice) (Name, Slice, bool) {
	name := Name{o.Namespace, o.Labels[discovery.LabelServiceName]}
	s := Slice{Name: o.Name}
	if name.Name == "" || excluded(o.Labels) || o.AddressType == discovery.AddressTypeFQDN {
		return name, s, false
	}
	if t, err := time.Parse(time.RFC3339Nano, o.Annotations[v1.EndpointsLastChangeTriggerTime]); err == nil {
		s.Triggered = t
	}
	for _, p := range o.Ports {
		protocol := v1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		number, ok := apivalue.ProtocolOf(protocol)
		// A port without number means all ports, which no Service can.
		if !ok || p.Port == nil || *p.Port <= 0 {
			continue
		}
		port := SlicePort{Protocol: number, Port: uint16(*p.Port)}
		if p.Name != nil {
			port.Name = unique.Make(*p.Name).Value()
		}
		s.Ports = append(s.Ports, port)
	}
	s.Endpoints = make([]Endpoint, 0, len(o.Endpoints))
	for _, e := range o.Endpoints {
		// The further addresses of an endpoint are of no use to anybody.
		if len(e.Addresses) == 0 {
			continue
		}
		address, ok := parseAddr(e.Addresses[0])
		if !ok || address.Is6() != (o.AddressType == discovery.AddressTypeIPv6) {
			continue
		}
		endpoint := Endpoint{
			Address: address,
			Hints:   hintsOf(e.Hints),
			// What is not said is assumed to be good, and alive.
			Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
			Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
			Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
		}
		if e.NodeName != nil {
			endpoint.Node = unique.Make(*e.NodeName).Value()
		}
		s.Endpoints = append(s.Endpoints, endpoint)
	}
	s.sort()
	return name, s, true
}

// sort puts the endpoints in the order that [Slice] says.
func (s *Slice) sort() {
	slices.SortStableFunc(s.Endpoints, func(a, b Endpoint) int { return a.Address.Compare(b.Address) })
}

func hintsOf(o *discovery.EndpointHints) *Hints {
	if o == nil || len(o.ForZones) == 0 && len(o.ForNodes) == 0 {
		return nil
	}
	h := &Hints{}
	for _, z := range o.ForZones {
		h.Zones = append(h.Zones, unique.Make(z.Name).Value())
	}
	for _, n := range o.ForNodes {
		h.Nodes = append(h.Nodes, unique.Make(n.Name).Value())
	}
	return h
}

// parseAddr reads an address; spaces around it and a zone do not count.
func parseAddr(text string) (netip.Addr, bool) {
	a, err := apivalue.ParseAddr(strings.TrimSpace(text))
	return a.WithZone(""), err == nil
}

// addresses returns those that can be read, each once.
func addresses(texts []string) []netip.Addr {
	var good []netip.Addr
	for _, text := range texts {
		if a, ok := parseAddr(text); ok && !slices.Contains(good, a) {
			good = append(good, a)
		}
	}
	return good
}

// ranges returns the prefixes that can be read.
func ranges(texts []string) []netip.Prefix {
	var good []netip.Prefix
	for _, text := range texts {
		address, length, found := strings.Cut(strings.TrimSpace(text), "/")
		if a, ok := parseAddr(address); ok && found {
			if p, err := netip.ParsePrefix(a.String() + "/" + length); err == nil {
				good = append(good, p.Masked())
			}
		}
	}
	return good
}
