package loadbalancer

import (
	"log/slog"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/loop"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Who gives addresses does not hear of endpoints, and who answers for them hears of all. Both
// hear of a list, with which everything may be known.
func TestWhoHearsOfWhat(t *testing.T) {
	s := NewSource(nil, service.NewWatch(nil, slog.New(slog.DiscardHandler)))
	everything, services := s.Changed(), s.ServicesChanged()
	heard := func(signal loop.Signal) bool {
		select {
		case <-signal:
			return true
		default:
			return false
		}
	}
	step := func(what string, wantEverything, wantServices bool) {
		t.Helper()
		if a, b := heard(everything), heard(services); a != wantEverything || b != wantServices {
			t.Errorf("%s: heard by who wants all %t, by who wants Services %t", what, a, b)
		}
	}
	ofServices := storeOf(s, ofServices, s.setService, s.dropService, s.keepServices)
	ofSlices := storeOf(s, ofSlices, s.setSlice, s.dropSlice, s.keepSlices)
	web := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer}}
	node := "n1"
	slice := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-a", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		Endpoints:  []discovery.Endpoint{{Addresses: []string{"10.244.1.2"}, NodeName: &node}}, AddressType: discovery.AddressTypeIPv4,
	}
	for _, one := range []struct {
		what              string
		do                func() error
		everything, fewer bool
	}{
		{"a list of Services", func() error { return ofServices.Replace(nil, "") }, true, true},
		{"a list of EndpointSlices", func() error { return ofSlices.Replace(nil, "") }, true, true},
		{"a Service", func() error { return ofServices.Add(web) }, true, true},
		{"the same", func() error { return ofServices.Update(web) }, false, false},
		{"an EndpointSlice", func() error { return ofSlices.Add(slice) }, true, false},
		{"the same", func() error { return ofSlices.Update(slice) }, false, false},
		{"it goes", func() error { return ofSlices.Delete(slice) }, true, false},
		{"the Service goes", func() error { return ofServices.Delete(web) }, true, true},
	} {
		if err := one.do(); err != nil {
			t.Fatal(err)
		}
		step(one.what, one.everything, one.fewer)
	}
}
