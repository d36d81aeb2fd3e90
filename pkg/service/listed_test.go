package service

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func serviceObject(name string, port int32) *v1.Service {
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}},
		Spec:       v1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []v1.ServicePort{{Port: port}}},
	}
}

func sliceObject(name, service, address string) *discovery.EndpointSlice {
	port := int32(8080)
	empty := ""
	return &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discovery.LabelServiceName: service}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &empty, Port: &port}},
		Endpoints:   []discovery.Endpoint{{Addresses: []string{address}, TargetRef: &v1.ObjectReference{Name: "pod"}}},
	}
}

// batchText is a batch in words.
func batchText(b Batch) string {
	var all []string
	for _, s := range b.Set {
		text := s.Name.Name
		for _, p := range s.Ports {
			text += fmt.Sprintf(":%d", p.Port)
		}
		for _, slice := range s.Slices {
			for _, e := range slice.Endpoints {
				text += " " + e.Address.String()
			}
		}
		all = append(all, text)
	}
	for _, n := range b.Deleted {
		all = append(all, "no "+n.Name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestListed(t *testing.T) {
	l := newListed()
	services, endpoints := serviceStore(l), sliceStore(l)
	step := func(what string, err error, want string) {
		t.Helper()
		must(t, err)
		if got := batchText(l.take()); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	step("Services alone", services.Replace([]any{serviceObject("a", 80), serviceObject("b", 81)}, ""), "")
	if l.known() {
		t.Error("known without EndpointSlices")
	}
	step("and EndpointSlices", endpoints.Replace([]any{sliceObject("a-1", "a", "10.244.1.1"), sliceObject("a-2", "a", "10.244.1.2"), sliceObject("x-1", "x", "10.244.1.3")}, ""), "a:80 10.244.1.1 10.244.1.2, b:81, no x")
	step("the same again", services.Replace([]any{serviceObject("a", 80), serviceObject("b", 81)}, ""), "")
	same := sliceObject("a-1", "a", "10.244.1.1")
	same.Annotations = map[string]string{"irrelevant": "yes"}
	step("the same slice", endpoints.Update(same), "")
	step("another address", endpoints.Update(sliceObject("a-1", "a", "10.244.1.9")), "a:80 10.244.1.9 10.244.1.2")
	step("a slice changes its Service", endpoints.Update(sliceObject("a-1", "b", "10.244.1.9")), "a:80 10.244.1.2, b:81 10.244.1.9")
	step("a Service before its slice", services.Add(serviceObject("x", 82)), "x:82 10.244.1.3")
	step("a slice goes", endpoints.Delete(sliceObject("x-1", "x", "10.244.1.3")), "x:82")
	step("one that nobody knew goes", endpoints.Delete(sliceObject("y-1", "y", "10.244.1.3")), "")
	headless := serviceObject("x", 82)
	headless.Spec.ClusterIP = "None"
	step("a Service becomes headless", services.Update(headless), "no x")
	step("a Service goes, and its slices stay", services.Delete(serviceObject("a", 80)), "no a")
	step("and it comes back", services.Add(serviceObject("a", 80)), "a:80 10.244.1.2")
	step("a new list", endpoints.Replace([]any{sliceObject("a-2", "a", "10.244.1.2")}, ""), "b:81")
	step("a new list of Services", services.Replace(nil, ""), "no a, no b")
	if err := services.Add(sliceObject("a-1", "a", "10.244.1.1")); err == nil {
		t.Error("a slice was taken for a Service")
	}

	// When the change happened is told once.
	step("a Service again", services.Add(serviceObject("a", 80)), "a:80 10.244.1.2")
	triggered := sliceObject("a-2", "a", "10.244.1.7")
	triggered.Annotations = map[string]string{v1.EndpointsLastChangeTriggerTime: "2026-01-02T03:04:05.6Z"}
	must(t, endpoints.Update(triggered))
	b := l.take()
	if len(b.Triggered) != 1 || !b.Triggered[0].Equal(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)) {
		t.Errorf("triggered at %v", b.Triggered)
	}
	triggered = triggered.DeepCopy()
	triggered.Endpoints[0].Addresses[0] = "10.244.1.8"
	must(t, endpoints.Update(triggered))
	if b := l.take(); len(b.Set) != 1 || len(b.Triggered) != 0 {
		t.Errorf("the same time again: %+v", b)
	}
}

// clientOf has an API server serve until the test ends.
func clientOf(t *testing.T, s *apiserver.Server) *apiwatch.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.Serve(listener)
	t.Cleanup(s.Stop)
	client, err := apiwatch.NewClientFor(&rest.Config{Host: "http://" + listener.Addr().String()})
	must(t, err)
	return client
}

func TestKubernetesSource(t *testing.T) {
	other := serviceObject("other", 80)
	other.Labels = map[string]string{labelOtherProxy: "x"}
	server := apiserver.New()
	for _, o := range []apiserver.Object{serviceObject("a", 80), other, sliceObject("a-1", "a", "10.244.1.1")} {
		server.Put(o)
	}
	k := NewKubernetes(NewWatch(clientOf(t, server), slog.New(slog.DiscardHandler)))
	if err := k.Check(); err == nil {
		t.Error("healthy before it runs")
	}
	go k.Run(t.Context())
	await := func(want string) {
		t.Helper()
		deadline := time.After(pace.Far())
		got := ""
		for {
			select {
			case <-k.Changed():
				if got = batchText(k.Take()); got == want {
					return
				}
			case <-deadline:
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	await("a:80 10.244.1.1")
	must(t, k.Check())
	server.Put(sliceObject("a-1", "a", "10.244.1.2"))
	await("a:80 10.244.1.2")
	server.Remove(serviceObject("a", 80))
	await("no a")
}
