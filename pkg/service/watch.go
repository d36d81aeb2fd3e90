package service

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// Watch follows Services and EndpointSlices for all that want to know of them: the API
// server sends each of them once, and once it is decoded.
type Watch struct {
	client   *apiwatch.Client
	contacts [2]*apiwatch.Contact
	selector string // of Services
	services []apiwatch.Store[*v1.Service]
	slices   []apiwatch.Store[*discovery.EndpointSlice]
	begin    sync.Once
}

// NewWatch returns one that watches with client, for nobody yet.
func NewWatch(client *apiwatch.Client, log *slog.Logger) *Watch {
	return &Watch{client: client, selector: Selector, contacts: [2]*apiwatch.Contact{apiwatch.New("services", log), apiwatch.New("endpointslices", log)}}
}

// Tell has stores told of all that comes after Run. Of Services those that are headless or
// left to another proxy are told too where everything is.
func (w *Watch) Tell(everything bool, services apiwatch.Store[*v1.Service], slices apiwatch.Store[*discovery.EndpointSlice]) {
	if everything {
		w.selector = ""
	}
	w.services, w.slices = append(w.services, services), append(w.slices, slices)
}

// Run watches until ctx ends, whoever calls it first. Watching goes on for some seconds
// after ctx has ended: client-go sleeps without regard to it.
func (w *Watch) Run(ctx context.Context) {
	w.begin.Do(func() {
		services, slices := apiwatch.Several(w.services), apiwatch.Several(w.slices)
		services.Strip, slices.Strip = stripService, stripSlice
		go w.contacts[ofServices].Follow(ctx, w.client.Services(), w.selector, &v1.Service{}, services)
		go w.contacts[ofSlices].Follow(ctx, w.client.EndpointSlices(), Selector, &discovery.EndpointSlice{}, slices)
	})
	<-ctx.Done()
}

// Check says what is wrong, and since when; nil if nothing.
func (w *Watch) Check() error {
	return errors.Join(w.contacts[ofServices].Check(), w.contacts[ofSlices].Check())
}

// ownAnnotations begin like this.
const ownAnnotations = "flatnet.io/"

func stripService(object any) (any, error) {
	o, is := object.(*v1.Service)
	if !is {
		return object, nil
	}
	c := *o // others may hold it too
	c.ManagedFields, c.Annotations = nil, nil
	for name, value := range o.Annotations {
		if !strings.HasPrefix(name, ownAnnotations) {
			continue
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[name] = value
	}
	return &c, nil
}

func stripSlice(object any) (any, error) {
	o, is := object.(*discovery.EndpointSlice)
	if !is {
		return object, nil
	}
	c := *o
	c.ManagedFields = nil
	c.Endpoints = slices.Clone(o.Endpoints)
	for i := range c.Endpoints {
		c.Endpoints[i].TargetRef, c.Endpoints[i].DeprecatedTopology = nil, nil
	}
	return &c, nil
}
