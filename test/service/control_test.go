package service_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// control is a machine on the underlay with an API server that knows Services and
// EndpointSlices.
type control struct {
	*apiserver.Server
	machine    *netlab.Node
	address    netip.AddrPort
	kubeconfig string
	known      map[service.Name][]*discovery.EndpointSlice
	marks      int
}

func newControl(t *testing.T, c *cluster.Cluster, segment *cluster.Subnet, ipv6 bool) *control {
	t.Helper()
	k := &control{
		Server: apiserver.New(), machine: c.Lab.Node("control", segment.Port(pick(ipv6, "172.30.0.250/24", "fd00:30::fa/64"))),
		address:    netip.AddrPortFrom(netip.MustParseAddr(pick(ipv6, "172.30.0.250", "fd00:30::fa")), 6443),
		kubeconfig: filepath.Join(c.Directory, "kubeconfig"), known: map[service.Name][]*discovery.EndpointSlice{},
	}
	k.Protobuf, k.Streams = true, true
	must(t, apiserver.WriteKubeconfig(k.kubeconfig, k.address.String()))
	k.begin(t)
	t.Cleanup(k.Stop)
	return k
}

// begin makes the API server answer.
func (k *control) begin(t *testing.T) {
	t.Helper()
	must(t, k.machine.Do(func() error { return k.Listen(k.address.String()) }))
}

// put makes these the Services of their names.
func (k *control) put(services ...service.Service) {
	for _, s := range services {
		slices := slicesOf(s)
		for i, old := range k.known[s.Name] {
			if i >= len(slices) {
				k.Remove(old)
			}
		}
		k.known[s.Name] = slices
		for _, o := range slices {
			k.Put(o)
		}
		k.Put(serviceOf(s))
	}
}

// forget deletes a Service.
func (k *control) forget(name service.Name) {
	for _, old := range k.known[name] {
		k.Remove(old)
	}
	delete(k.known, name)
	k.Remove(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}})
}

// mark makes a Service that no node has seen; a node that has it has all that was
// there before.
func (k *control) mark(ipv6 bool) (front, endpoint netip.AddrPort) {
	k.marks++
	number := fmt.Sprintf("%d.%d", k.marks>>8, k.marks&0xff)
	six := fmt.Sprintf("%x", k.marks)
	front = at(netip.MustParseAddr(pick(ipv6, "10.111."+number, "fd00:96::1:"+six)), 9)
	endpoint = at(netip.MustParseAddr(pick(ipv6, "10.250."+number, "fd00:250::"+six)), 9)
	k.put(service.Service{
		Name: marker, Ports: []service.Port{{Protocol: service.TCP, Port: 9}}, ClusterIPs: []netip.Addr{front.Addr()},
		Slices: []service.Slice{{
			Ports:     []service.SlicePort{{Protocol: service.TCP, Port: 9}},
			Endpoints: []service.Endpoint{{Address: endpoint.Addr(), Ready: true, Serving: true}},
		}},
	})
	return front, endpoint
}

var marker = service.Name{Namespace: "test", Name: "marker"}

// reached waits until all nodes have the rules of what the API server has told.
func (s *site) reached() {
	s.t.Helper()
	front, endpoint := s.control.mark(s.ipv6)
	for _, n := range s.Nodes {
		s.Eventually("rules of Services on "+n.Name, func() error {
			status, err := agent.AskServices(s.t.Context(), n.StateDir)
			if err != nil {
				return err
			}
			for _, p := range status.Ports {
				if p.Service == marker.String() && p.Fronts[0].Address == front && slices.Contains(p.Endpoints, endpoint) && status.Synced {
					return nil
				}
			}
			return fmt.Errorf("%s at %s is not among %d ports, synced %t %s", marker, front, len(status.Ports), status.Synced, status.Source)
		})
	}
}

func serviceOf(s service.Service) *v1.Service {
	o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Name.Namespace, Name: s.Name.Name}}
	o.Spec.Type, o.Spec.ClusterIPs = v1.ServiceTypeClusterIP, texts(s.ClusterIPs)
	o.Spec.ExternalIPs, o.Spec.LoadBalancerSourceRanges = texts(s.ExternalIPs), texts(s.SourceRanges)
	for _, p := range s.Ports {
		o.Spec.Ports = append(o.Spec.Ports, v1.ServicePort{Name: p.Name, Protocol: protocolOf(p.Protocol), Port: int32(p.Port), NodePort: int32(p.NodePort)})
		if p.NodePort > 0 {
			o.Spec.Type = v1.ServiceTypeNodePort
		}
	}
	for _, a := range s.LoadBalancerIPs {
		o.Spec.Type = v1.ServiceTypeLoadBalancer
		o.Status.LoadBalancer.Ingress = append(o.Status.LoadBalancer.Ingress, v1.LoadBalancerIngress{IP: a.String()})
	}
	internal := v1.ServiceInternalTrafficPolicyCluster
	if s.InternalLocal {
		internal = v1.ServiceInternalTrafficPolicyLocal
	}
	o.Spec.InternalTrafficPolicy = &internal
	if s.ExternalLocal {
		o.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
	}
	o.Spec.HealthCheckNodePort = int32(s.HealthCheckPort)
	if s.Affinity > 0 {
		seconds := int32(s.Affinity / time.Second)
		o.Spec.SessionAffinity = v1.ServiceAffinityClientIP
		o.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	return o
}

func slicesOf(s service.Service) []*discovery.EndpointSlice {
	var all []*discovery.EndpointSlice
	for i, slice := range s.Slices {
		o := &discovery.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Name.Namespace, Name: fmt.Sprintf("%s-%d", s.Name.Name, i), Labels: map[string]string{discovery.LabelServiceName: s.Name.Name},
		}, AddressType: discovery.AddressTypeIPv4}
		if !slice.Triggered.IsZero() {
			o.Annotations = map[string]string{v1.EndpointsLastChangeTriggerTime: slice.Triggered.Format(time.RFC3339Nano)}
		}
		for _, p := range slice.Ports {
			name, protocol, port := p.Name, protocolOf(p.Protocol), int32(p.Port)
			o.Ports = append(o.Ports, discovery.EndpointPort{Name: &name, Protocol: &protocol, Port: &port})
		}
		for _, e := range slice.Endpoints {
			if e.Address.Is6() {
				o.AddressType = discovery.AddressTypeIPv6
			}
			endpoint := discovery.Endpoint{
				Addresses:  []string{e.Address.String()},
				Conditions: discovery.EndpointConditions{Ready: &e.Ready, Serving: &e.Serving, Terminating: &e.Terminating},
			}
			if e.Node != "" {
				endpoint.NodeName = &e.Node
			}
			if e.Hints != nil {
				endpoint.Hints = &discovery.EndpointHints{}
				for _, z := range e.Hints.Zones {
					endpoint.Hints.ForZones = append(endpoint.Hints.ForZones, discovery.ForZone{Name: z})
				}
			}
			o.Endpoints = append(o.Endpoints, endpoint)
		}
		all = append(all, o)
	}
	return all
}

func protocolOf(p service.Protocol) v1.Protocol { return v1.Protocol(strings.ToUpper(p.String())) }

func texts[T fmt.Stringer](items []T) []string {
	var all []string
	for _, i := range items {
		all = append(all, i.String())
	}
	return all
}
