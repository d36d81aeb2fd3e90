package apiserver

import (
	"cmp"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	coordination "k8s.io/api/coordination/v1"
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

// namespacesPath is where those are in which others are.
const namespacesPath = "/api/v1/namespaces"

const leasesPath = "/apis/coordination.k8s.io/v1/leases"

var resources = [...]resource{
	{"/api/v1/nodes", v1.SchemeGroupVersion, &v1.Node{}, &v1.NodeList{}},
	{"/api/v1/pods", v1.SchemeGroupVersion, &v1.Pod{}, &v1.PodList{}},
	{"/api/v1/configmaps", v1.SchemeGroupVersion, &v1.ConfigMap{}, &v1.ConfigMapList{}},
	{namespacesPath, v1.SchemeGroupVersion, &v1.Namespace{}, &v1.NamespaceList{}},
	{"/apis/networking.k8s.io/v1/networkpolicies", networking.SchemeGroupVersion, &networking.NetworkPolicy{}, &networking.NetworkPolicyList{}},
	{"/api/v1/services", v1.SchemeGroupVersion, &v1.Service{}, &v1.ServiceList{}},
	{"/apis/discovery.k8s.io/v1/endpointslices", discovery.SchemeGroupVersion, &discovery.EndpointSlice{}, &discovery.EndpointSliceList{}},
	{"/api/v1/events", v1.SchemeGroupVersion, &v1.Event{}, &v1.EventList{}},
	{"/apis/apps/v1/daemonsets", apps.SchemeGroupVersion, &apps.DaemonSet{}, &apps.DaemonSetList{}},
	{leasesPath, coordination.SchemeGroupVersion, &coordination.Lease{}, &coordination.LeaseList{}},
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

// resourceAt returns what a path leads to, nil if nothing that is known, and the
// namespace and the object that it is about, "" for all.
func resourceAt(path string) (of *resource, namespace, name string) {
	if before, after, is := strings.Cut(path, "/namespaces/"); is {
		if in, rest, is := strings.Cut(after, "/"); is {
			namespace = in
			path, name, _ = strings.Cut(rest, "/")
			path = before + "/" + path
		} else {
			path, name = before+"/namespaces", after
		}
	}
	for i := range resources {
		if path == resources[i].path {
			return &resources[i], namespace, name
		}
	}
	return nil, "", ""
}

// pageOf returns the part of a list that is asked for, by name: who gives a limit gets
// so many, and what to ask for next. A list that changes meanwhile is not as it was, unlike
// that of a real API server; which answers from its cache (version 0) as one, too.
func pageOf(all []Object, query url.Values) (page []Object, next string, left *int64) {
	limit, _ := strconv.Atoi(query.Get("limit"))
	if limit <= 0 || query.Get("resourceVersion") == "0" {
		return all, "", nil
	}
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	from, _ := strconv.Atoi(query.Get("continue"))
	from = min(from, len(all))
	to := min(from+limit, len(all))
	if to < len(all) {
		next, left = strconv.Itoa(to), new(int64)
		*left = int64(len(all) - to)
	}
	return all[from:to], next, left
}

// isEvents reports whether a path is where events are posted to: of the core group,
// or of the newer one.
func isEvents(path string) (core, newer bool) {
	there := strings.HasSuffix(path, "/events")
	return there && strings.HasPrefix(path, "/api/v1/namespaces/"), there && strings.HasPrefix(path, "/apis/events.k8s.io/v1/namespaces/")
}

// selection is which objects somebody wants to hear of.
type selection struct {
	labels    labels.Selector
	fields    fields.Selector
	namespace string // "" is all
}

func parseSelection(labelSelector, fieldSelector string) (selection, error) {
	byLabel, err := labels.Parse(labelSelector)
	if err != nil {
		return selection{}, err
	}
	byField, err := fields.ParseSelector(fieldSelector)
	return selection{labels: byLabel, fields: byField}, err
}

// has reports whether an object is one of the selection; nil is not.
func (s selection) has(o Object) bool {
	if o == nil || s.namespace != "" && o.GetNamespace() != s.namespace {
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
