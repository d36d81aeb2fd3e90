package apiserver

import (
	"fmt"
	"net"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// client serves until the test ends.
func client(t *testing.T, s *Server, contentType string) kubernetes.Interface {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(listener)
	t.Cleanup(s.Stop)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: "http://" + listener.Addr().String(), ContentConfig: rest.ContentConfig{ContentType: contentType}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(name, proxy string) *v1.Service {
	o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.1"}}
	if proxy != "" {
		o.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": proxy}
	}
	return o
}

// next is what a watch tells next.
func next(t *testing.T, w watch.Interface) string {
	t.Helper()
	e, open := <-w.ResultChan()
	if !open {
		return "closed"
	}
	o := e.Object.(Object)
	return fmt.Sprintf("%s %s %s", e.Type, o.GetName(), o.GetResourceVersion())
}

func TestWatchOfASelection(t *testing.T) {
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			s := New()
			s.Protobuf = true
			c := client(t, s, contentType)
			s.Put(service("web", ""))
			s.Put(service("other", "istio"))
			options := metav1.ListOptions{LabelSelector: "!service.kubernetes.io/service-proxy-name", FieldSelector: "spec.clusterIP!=None"}
			list, err := c.CoreV1().Services("").List(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) != 1 || list.Items[0].Name != "web" || list.ResourceVersion != "12" {
				t.Fatalf("listed are %v", list)
			}
			options.ResourceVersion = list.ResourceVersion
			w, err := c.CoreV1().Services("").Watch(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			s.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}) // 13: of another kind
			s.Put(service("web", ""))
			s.Put(service("other", ""))
			s.Put(service("web", "istio"))
			s.Remove(service("web", "")) // 17: nobody's business
			s.Remove(service("other", ""))
			for _, want := range []string{"MODIFIED web 14", "ADDED other 15", "DELETED web 16", "DELETED other 18"} {
				if got := next(t, w); got != want {
					t.Errorf("told is %q, want %q", got, want)
				}
			}
		})
	}
}

func TestStreamedList(t *testing.T) {
	s := New()
	s.Streams = true
	c := client(t, s, runtime.ContentTypeProtobuf)
	s.Put(&discovery.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1"}, AddressType: discovery.AddressTypeIPv4})
	initial := true
	w, err := c.DiscoveryV1().EndpointSlices("").Watch(t.Context(), metav1.ListOptions{SendInitialEvents: &initial, AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for _, want := range []string{"ADDED web-1 11", "BOOKMARK  11"} {
		if got := next(t, w); got != want {
			t.Errorf("told is %q, want %q", got, want)
		}
	}
}

func TestWhatIsNotKnown(t *testing.T) {
	s := New()
	c := client(t, s, runtime.ContentTypeJSON)
	if _, err := c.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err == nil || !strings.Contains(err.Error(), "GET /api/v1/secrets is not list or watch of what is known here") {
		t.Error(err)
	}
	e := &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "conflict"}, Reason: "AddressConflict"}
	stored, err := c.CoreV1().Events("shop").Create(t.Context(), e, metav1.CreateOptions{})
	if err != nil || stored.Reason != e.Reason {
		t.Error(stored, err)
	}
	if _, err := c.CoreV1().Events("shop").Create(t.Context(), e, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Error(err)
	}
	if all := s.Events(); len(all) != 1 || all[0].Name != e.Name {
		t.Error(all)
	}
	const post = "POST /api/v1/namespaces/shop/events"
	if got := strings.Join(s.Calls(), ", "); got != "GET /api/v1/secrets, "+post+", "+post {
		t.Error(got)
	}
}
