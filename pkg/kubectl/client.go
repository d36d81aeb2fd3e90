package kubectl

import (
	"context"
	"fmt"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
)

// client asks an API server for the few kinds of objects that the commands need. With
// the clientset of client-go, which knows all of Kubernetes' kinds, the program would be
// half as large again, and take as much longer to build.
type client struct {
	config     *rest.Config
	core, apps *rest.RESTClient
	parameters runtime.ParameterCodec
}

// newClient returns a client that connects as config says. It does not connect yet.
func newClient(config *rest.Config, version string) (*client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "kubectl-flatnet/" + version
	// What is asked for is bounded here, by what waits for the answer.
	config.QPS = -1
	kinds := runtime.NewScheme()
	kinds.AddKnownTypes(v1.SchemeGroupVersion, &v1.Node{}, &v1.NodeList{}, &v1.Pod{}, &v1.PodList{}, &v1.Namespace{},
		&v1.Service{}, &v1.ConfigMap{}, &v1.ConfigMapList{}, &v1.PodLogOptions{})
	kinds.AddKnownTypes(apps.SchemeGroupVersion, &apps.DaemonSet{}, &apps.DaemonSetList{})
	for _, group := range []schema.GroupVersion{v1.SchemeGroupVersion, apps.SchemeGroupVersion} {
		metav1.AddToGroupVersion(kinds, group)
	}
	codecs := serializer.NewCodecFactory(kinds)
	c := &client{config: config, parameters: runtime.NewParameterCodec(kinds)}
	for _, g := range []struct {
		to      **rest.RESTClient
		path    string
		version schema.GroupVersion
	}{{&c.core, "/api", v1.SchemeGroupVersion}, {&c.apps, "/apis", apps.SchemeGroupVersion}} {
		one := rest.CopyConfig(config)
		// A Node in protobuf is half the size of one in JSON.
		one.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		one.ContentType = "application/vnd.kubernetes.protobuf"
		one.APIPath, one.GroupVersion, one.NegotiatedSerializer = g.path, &g.version, codecs.WithoutConversion()
		var err error
		if *g.to, err = rest.RESTClientFor(one); err != nil {
			return nil, fmt.Errorf("making a client of the API server %s: %w", config.Host, err)
		}
	}
	return c, nil
}

// object is what is common to objects of all kinds.
type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// kind returns a client of one of core's kinds of objects; namespace is "" for what is in
// none.
func kind[T any, P object[T]](c *client, resource, namespace string) *gentype.Client[P] {
	return gentype.NewClient(resource, c.core, c.parameters, namespace, func() P { return new(T) })
}

// pageSize is how many objects are asked for at a time: a Node may be 50 KB.
const pageSize = 500

// list is what is common to lists of all kinds.
type list interface {
	runtime.Object
	metav1.ListInterface
}

// eachPage lists all objects of a kind, and calls do with every page, so that no more
// than one has to be kept.
func eachPage[L list](ctx context.Context, c *client, api *rest.RESTClient, resource, namespace string, options metav1.ListOptions, empty func() L, do func(L)) error {
	all := gentype.NewClientWithList(resource, api, c.parameters, namespace, func() *v1.Pod { return &v1.Pod{} }, empty)
	options.Limit = pageSize
	for {
		page, err := all.List(ctx, options)
		if err != nil {
			where := ""
			if namespace != "" {
				where = " of namespace " + namespace
			}
			return fmt.Errorf("listing %s%s: %w", resource, where, err)
		}
		do(page)
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

func (c *client) nodes(ctx context.Context, do func(*v1.Node)) error {
	return eachPage(ctx, c, c.core, "nodes", "", metav1.ListOptions{}, func() *v1.NodeList { return &v1.NodeList{} }, func(l *v1.NodeList) {
		for i := range l.Items {
			do(&l.Items[i])
		}
	})
}

func (c *client) pods(ctx context.Context, namespace, selector string, do func(*v1.Pod)) error {
	return eachPage(ctx, c, c.core, "pods", namespace, metav1.ListOptions{LabelSelector: selector}, func() *v1.PodList { return &v1.PodList{} }, func(l *v1.PodList) {
		for i := range l.Items {
			do(&l.Items[i])
		}
	})
}

// configMaps are those of flatnet's.
func (c *client) configMaps(ctx context.Context, namespace string, do func(metav1.Object)) error {
	return eachPage(ctx, c, c.core, "configmaps", namespace, metav1.ListOptions{LabelSelector: partLabel}, func() *v1.ConfigMapList { return &v1.ConfigMapList{} }, func(l *v1.ConfigMapList) {
		for i := range l.Items {
			do(&l.Items[i])
		}
	})
}

func (c *client) daemonSets(ctx context.Context, namespace, selector string) (all []apps.DaemonSet, err error) {
	err = eachPage(ctx, c, c.apps, "daemonsets", namespace, metav1.ListOptions{LabelSelector: selector}, func() *apps.DaemonSetList { return &apps.DaemonSetList{} }, func(l *apps.DaemonSetList) {
		all = append(all, l.Items...)
	})
	return all, err
}

// raw returns an answer that is no object of Kubernetes', or the reason that the API
// server gives in the place of one.
func raw(ctx context.Context, r *rest.Request) ([]byte, error) {
	result := r.SetHeader("Accept", "application/json, */*").Do(ctx)
	body, err := result.Raw()
	if err != nil {
		return nil, result.Error()
	}
	return body, nil
}
