package apiwatch

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client asks an API server for the few kinds of objects that flatnet needs. The
// clientset of client-go knows all of Kubernetes' kinds, and so does then the
// program: it would be half as large again, in memory too.
type Client struct {
	// Requests counts what is asked; nil where nobody wants to know.
	Requests *Requests

	services listsAndWatches[*v1.ServiceList]
	slices   listsAndWatches[*discovery.EndpointSliceList]
	core     *rest.RESTClient
	writes   *rest.RESTClient // core without a limit of requests a second
	codec    runtime.ParameterCodec
}

type listsAndWatches[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Resource is all objects of a kind.
type Resource struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Services are those of all namespaces.
func (c *Client) Services() Resource { return resource(c.services) }

// EndpointSlices are those of all namespaces.
func (c *Client) EndpointSlices() Resource { return resource(c.slices) }

func resource[L runtime.Object](of listsAndWatches[L]) Resource {
	return Resource{func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return of.List(ctx, o) }, of.Watch}
}

// CreateEvent creates an Event in its namespace.
func (c *Client) CreateEvent(ctx context.Context, e *v1.Event) error {
	events := gentype.NewClient("events", c.core, c.codec, e.Namespace, func() *v1.Event { return &v1.Event{} })
	_, err := events.Create(ctx, e, metav1.CreateOptions{})
	return err
}

// NewClient returns a client of the API server that the kubeconfig file names;
// with an empty path, of the cluster that the process is a pod of. It does not
// connect yet.
func NewClient(kubeconfig string) (*Client, error) {
	config, err := restConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	return NewClientFor(config)
}

// NewClientFor returns a client that connects as config says.
func NewClientFor(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "flatnetd"
	// A Node in protobuf is half the size of one in JSON and costs a fifth to
	// decode; an API server that does not speak it answers in JSON.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	kinds := runtime.NewScheme()
	kinds.AddKnownTypes(v1.SchemeGroupVersion, &v1.Service{}, &v1.ServiceList{}, &v1.Event{})
	kinds.AddKnownTypes(discovery.SchemeGroupVersion, &discovery.EndpointSlice{}, &discovery.EndpointSliceList{})
	for _, group := range []schema.GroupVersion{v1.SchemeGroupVersion, discovery.SchemeGroupVersion} {
		metav1.AddToGroupVersion(kinds, group)
	}
	codecs, parameters := serializer.NewCodecFactory(kinds), runtime.NewParameterCodec(kinds)
	group := func(path string, version schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = path, &version, codecs.WithoutConversion()
		client, err := rest.RESTClientFor(c)
		if err != nil {
			return nil, fmt.Errorf("making a client of the API server %s: %w", config.Host, err)
		}
		return client, nil
	}
	core, err := group("/api", v1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	others, err := group("/apis", discovery.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	// client-go's five requests a second would keep a lease from being renewed in time.
	// Who writes has limits of their own.
	config.QPS = -1
	writes, err := group("/api", v1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &Client{
		services: gentype.NewClientWithList("services", core, parameters, "",
			func() *v1.Service { return &v1.Service{} }, func() *v1.ServiceList { return &v1.ServiceList{} }),
		slices: gentype.NewClientWithList("endpointslices", others, parameters, "",
			func() *discovery.EndpointSlice { return &discovery.EndpointSlice{} }, func() *discovery.EndpointSliceList { return &discovery.EndpointSliceList{} }),
		core: core, writes: writes, codec: parameters,
	}, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("finding the API server of the cluster: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}
