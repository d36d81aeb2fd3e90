package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// supply is the Services of a cluster, each with as many endpoints, and none of
// these of two Services. All endpoints are one pod, which has the whole network
// supplyCIDR; so all can be reached.
type supply struct {
	services, endpoints int
	moved               map[int]netip.Addr // endpoints by number, over all Services
}

const (
	supplyCIDR   = "10.128.0.0/12"
	serviceCIDR  = "10.96.0.0/12"
	servicePort  = 80
	endpointPort = 8080
	perSlice     = 100 // endpoints, as Kubernetes has them
)

var (
	firstClusterIP = netip.MustParseAddr("10.96.0.16")
	firstEndpoint  = netip.MustParseAddr("10.128.0.16")
	firstMoved     = netip.MustParseAddr("10.140.0.16") // new ones
)

func newSupply(services, endpoints int) *supply {
	return &supply{services, endpoints, map[int]netip.Addr{}}
}

// String says how many Services there are, and how large.
func (s *supply) String() string {
	return fmt.Sprintf("%s × %s", thousands(s.services), thousands(s.endpoints))
}

// thousands writes a number as people do.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// after returns the n-th IPv4 address after another.
func after(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	sum := int(b[0])<<24 + int(b[1])<<16 + int(b[2])<<8 + int(b[3]) + n
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// front is where Service i is reached.
func (s *supply) front(i int) netip.AddrPort {
	return netip.AddrPortFrom(after(firstClusterIP, i), servicePort)
}

// endpoint is where the j-th endpoint of Service i is reached.
func (s *supply) endpoint(i, j int) netip.AddrPort {
	number := i*s.endpoints + j
	a, moved := s.moved[number]
	if !moved {
		a = after(firstEndpoint, number)
	}
	return netip.AddrPortFrom(a, endpointPort)
}

// move replaces an endpoint by a new one, for n another one each time, and returns
// the slice that says so, and the address.
func (s *supply) move(n int) (*discovery.EndpointSlice, netip.Addr) {
	const stride = 7919 // a prime: they are spread over the Services
	number := n * stride % (s.services * s.endpoints)
	fresh := after(firstMoved, n)
	s.moved[number] = fresh
	return s.slice(number/s.endpoints, number%s.endpoints/perSlice), fresh
}

// fill gives a server all there is, and the node that is measured.
func (s *supply) fill(server *apiserver.Server) {
	server.Put(&networking.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networking.ServiceCIDRSpec{CIDRs: []string{serviceCIDR}}})
	server.Put(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(1), Labels: map[string]string{"kubernetes.io/hostname": nodeName(1), v1.LabelTopologyZone: zoneOf(0)}},
		Spec:       v1.NodeSpec{PodCIDR: podCIDR(1), PodCIDRs: []string{podCIDR(1)}},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "172.30.0.1"}, {Type: v1.NodeHostName, Address: nodeName(1)}}},
	})
	for i := range s.services {
		server.Put(s.service(i))
		for k := range (s.endpoints + perSlice - 1) / perSlice {
			server.Put(s.slice(i, k))
		}
	}
}

func zoneOf(n int) string { return "eu-central-1" + string(rune('a'+n%3)) }

func serviceName(i int) string { return fmt.Sprintf("service-%d", i) }

func namespaceOf(i int) string { return fmt.Sprintf("team-%d", i%50) }

// service is a Service as people have it.
func (s *supply) service(i int) *v1.Service {
	single := v1.IPFamilyPolicySingleStack
	app := map[string]string{"app.kubernetes.io/name": serviceName(i)}
	ip := s.front(i).Addr().String()
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(i), Name: serviceName(i), Labels: app, UID: types.UID(fmt.Sprintf("5e1f5c3e-0000-4000-8000-%012d", i)),
			CreationTimestamp: metav1.Unix(1700000000, 0), ManagedFields: managedBy("kubectl-client-side-apply"),
		},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, Selector: app,
			IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, IPFamilyPolicy: &single, SessionAffinity: v1.ServiceAffinityNone,
			Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromInt32(endpointPort)}},
		},
	}
}

// slice is the k-th EndpointSlice of a Service, as Kubernetes makes it.
func (s *supply) slice(i, k int) *discovery.EndpointSlice {
	ready, no := true, false
	name, port, protocol, controller := "http", int32(endpointPort), v1.ProtocolTCP, true
	slice := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(i), Name: fmt.Sprintf("%s-%05d", serviceName(i), k), GenerateName: serviceName(i) + "-",
			UID: types.UID(fmt.Sprintf("e51f5c3e-0000-4000-%04d-%012d", k, i)), CreationTimestamp: metav1.Unix(1700000000, 0),
			Labels: map[string]string{
				discovery.LabelServiceName: serviceName(i), discovery.LabelManagedBy: "endpointslice-controller.k8s.io", "app.kubernetes.io/name": serviceName(i),
			},
			Annotations:     map[string]string{v1.EndpointsLastChangeTriggerTime: time.Now().UTC().Format(time.RFC3339Nano)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: serviceName(i), Controller: &controller}},
			ManagedFields:   managedBy("kube-controller-manager"),
		},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	for j := k * perSlice; j < min(s.endpoints, (k+1)*perSlice); j++ {
		number := i*s.endpoints + j
		node, zone := nodeName(2+number%100), zoneOf(number)
		slice.Endpoints = append(slice.Endpoints, discovery.Endpoint{
			Addresses:  []string{s.endpoint(i, j).Addr().String()},
			Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready, Terminating: &no},
			NodeName:   &node, Zone: &zone,
			TargetRef: &v1.ObjectReference{
				Kind: "Pod", Namespace: namespaceOf(i), Name: fmt.Sprintf("%s-7d4b9c8f5-%05d", serviceName(i), j), UID: types.UID(fmt.Sprintf("90d15c3e-0000-4000-8000-%012d", number)),
			},
		})
	}
	return slice
}

// managedBy says who manages which field, as every object does.
func managedBy(manager string) []metav1.ManagedFieldsEntry {
	fields := `{"f:metadata":{"f:annotations":{".":{}},"f:labels":{".":{}}},` + strings.Repeat(`"f:spec":{},`, 20) + `"f:ports":{}}`
	return []metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)},
	}}
}
