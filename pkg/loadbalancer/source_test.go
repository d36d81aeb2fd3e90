package loadbalancer

import (
	"log/slog"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Who gives addresses does not hear of endpoints. Who answers for them hears only of Services
// that have some, and of endpoints where those with the policy Local have them. Both hear of
// a list, with which everything may be known.
func TestWhoHearsOfWhat(t *testing.T) {
	s := NewSource(nil, service.NewWatch(nil, slog.New(slog.DiscardHandler)))
	gives, answers := s.Changed(), s.HeldChanged()
	heard := func(signal loop.Signal) bool {
		select {
		case <-signal:
			return true
		default:
			return false
		}
	}
	ofServices := storeOf(s, ofServices, s.setService, s.dropService, s.keepServices)
	ofSlices := storeOf(s, ofSlices, s.setSlice, s.dropSlice, s.keepSlices)
	web := func(version, ip string, local bool) *v1.Service {
		o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", ResourceVersion: version}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer}}
		if ip != "" {
			o.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: ip}}
		}
		if local {
			o.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
		}
		return o
	}
	slice := func(node string) *discovery.EndpointSlice {
		return &discovery.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-a", Labels: map[string]string{discovery.LabelServiceName: "web"}},
			Endpoints:  []discovery.Endpoint{{Addresses: []string{"10.244.1.2"}, NodeName: &node}}, AddressType: discovery.AddressTypeIPv4,
		}
	}
	for _, one := range []struct {
		what           string
		do             func() error
		gives, answers bool
	}{
		{"a list of Services", func() error { return ofServices.Replace(nil, "") }, true, true},
		{"a list of EndpointSlices", func() error { return ofSlices.Replace(nil, "") }, true, true},
		{"a Service without address", func() error { return ofServices.Add(web("1", "", false)) }, true, false},
		{"the same", func() error { return ofServices.Update(web("1", "", false)) }, false, false},
		{"an EndpointSlice", func() error { return ofSlices.Add(slice("n1")) }, false, false},
		{"an address was written", func() error {
			s.Assume(s.Services()[0], []netip.Addr{netip.MustParseAddr("192.0.2.1")})
			return nil
		}, false, true},
		{"and is seen", func() error { return ofServices.Update(web("2", "192.0.2.1", false)) }, false, false},
		{"an endpoint moves", func() error { return ofSlices.Update(slice("n2")) }, false, false},
		{"only nodes with endpoints answer", func() error { return ofServices.Update(web("3", "192.0.2.1", true)) }, true, true},
		{"an endpoint moves", func() error { return ofSlices.Update(slice("n1")) }, false, true},
		{"the same", func() error { return ofSlices.Update(slice("n1")) }, false, false},
		{"it goes", func() error { return ofSlices.Delete(slice("n1")) }, false, true},
		{"the Service goes", func() error { return ofServices.Delete(web("4", "192.0.2.1", true)) }, true, true},
	} {
		if err := one.do(); err != nil {
			t.Fatal(err)
		}
		if a, b := heard(gives), heard(answers); a != one.gives || b != one.answers {
			t.Errorf("%s: heard by who gives addresses %t, by who answers %t", one.what, a, b)
		}
	}
}
