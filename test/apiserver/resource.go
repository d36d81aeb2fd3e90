package apiserver

import (
	"reflect"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// resource is a kind of object that the server knows.
type resource struct {
	path  string
	group schema.GroupVersion
	one   Object
	list  runtime.Object
}

var resources = [...]resource{
	{"/api/v1/nodes", v1.SchemeGroupVersion, &v1.Node{}, &v1.NodeList{}},
	{"/api/v1/pods", v1.SchemeGroupVersion, &v1.Pod{}, &v1.PodList{}},
	{"/api/v1/namespaces", v1.SchemeGroupVersion, &v1.Namespace{}, &v1.NamespaceList{}},
	{"/apis/networking.k8s.io/v1/networkpolicies", networking.SchemeGroupVersion, &networking.NetworkPolicy{}, &networking.NetworkPolicyList{}},
	{"/api/v1/services", v1.SchemeGroupVersion, &v1.Service{}, &v1.ServiceList{}},
	{"/apis/discovery.k8s.io/v1/endpointslices", discovery.SchemeGroupVersion, &discovery.EndpointSlice{}, &discovery.EndpointSliceList{}},
	{"/api/v1/events", v1.SchemeGroupVersion, &v1.Event{}, &v1.EventList{}},
	{"/apis/networking.k8s.io/v1/servicecidrs", networking.SchemeGroupVersion, &networking.ServiceCIDR{}, &networking.ServiceCIDRList{}},
}

// resourceOf returns what an object is one of, nil if it is of no known kind.
func resourceOf(o Object) *resource {
	for i := range resources {
		if reflect.TypeOf(o) == reflect.TypeOf(resources[i].one) {
			return &resources[i]
		}
	}
	return nil
}

// resourceAt returns what a path leads to, nil if nothing that is known.
func resourceAt(path string) *resource {
	for i := range resources {
		if path == resources[i].path {
			return &resources[i]
		}
	}
	return nil
}

// isEvents reports whether a path is where events are posted to: of the core group,
// or of the newer one.
func isEvents(path string) (core, newer bool) {
	there := strings.HasSuffix(path, "/events")
	return there && strings.HasPrefix(path, "/api/v1/namespaces/"), there && strings.HasPrefix(path, "/apis/events.k8s.io/v1/namespaces/")
}

// selection is which objects somebody wants to hear of.
type selection struct {
	labels labels.Selector
	fields fields.Selector
}

func parseSelection(labelSelector, fieldSelector string) (selection, error) {
	byLabel, err := labels.Parse(labelSelector)
	if err != nil {
		return selection{}, err
	}
	byField, err := fields.ParseSelector(fieldSelector)
	return selection{byLabel, byField}, err
}

// has reports whether an object is one of the selection; nil is not.
func (s selection) has(o Object) bool {
	if o == nil {
		return false
	}
	known := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	switch o := o.(type) {
	case *v1.Service:
		known["spec.clusterIP"] = o.Spec.ClusterIP
	case *v1.Pod:
		known["spec.hostNetwork"] = strconv.FormatBool(o.Spec.HostNetwork)
		known["status.phase"] = string(o.Status.Phase)
	}
	return s.labels.Matches(labels.Set(o.GetLabels())) && s.fields.Matches(known)
}

// told says what somebody hears of an event; nothing where that does not matter.
func (s selection) told(e event) (kind watch.EventType, o Object) {
	was, is := s.has(e.before), s.has(e.after)
	switch {
	case was && is:
		return watch.Modified, e.after
	case is:
		return watch.Added, e.after
	case was && e.after == nil:
		return watch.Deleted, e.before
	case was:
		gone := e.before.DeepCopyObject().(Object)
		gone.SetResourceVersion(e.after.GetResourceVersion())
		return watch.Deleted, gone
	}
	return "", nil
}
