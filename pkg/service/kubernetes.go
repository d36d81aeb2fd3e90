package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Source tells of Services and their endpoints.
type Source interface {
	// Run follows the source until ctx ends.
	Run(ctx context.Context)
	// Changed has an element when Take has something to return.
	Changed() <-chan struct{}
	// Take returns what has changed since the last call, all of it the first
	// time. It returns an empty Batch while not everything is known.
	Take() Batch
	// Known reports whether everything is known.
	Known() bool
	// Check returns nil while the source is healthy, else what is wrong. What
	// was taken stays good while it returns an error.
	Check() error
}

// Kubernetes is a Source that watches the Services and EndpointSlices of a
// Kubernetes cluster; it needs the right to list and watch these, and no other.
// Those that are headless or left to another proxy are not sent by the API server.
//
// While the API server is not reachable it retries for ever, and what is known stays.
type Kubernetes struct {
	client   kubernetes.Interface
	listed   *listed
	contacts [2]*contact
	log      *slog.Logger
}

// NewKubernetes returns a source that watches with client.
func NewKubernetes(client kubernetes.Interface, log *slog.Logger) *Kubernetes {
	return &Kubernetes{
		client: client, listed: newListed(), log: log,
		contacts: [2]*contact{{what: "services", log: log}, {what: "endpointslices", log: log}},
	}
}

// Changed implements Source.
func (k *Kubernetes) Changed() <-chan struct{} { return k.listed.changed }

// Take implements Source.
func (k *Kubernetes) Take() Batch { return k.listed.take() }

// Known implements Source.
func (k *Kubernetes) Known() bool { return k.listed.known() }

// Check implements Source. The error says since when the API server has not
// answered, and how.
func (k *Kubernetes) Check() error {
	err := errors.Join(k.contacts[0].check(), k.contacts[1].check())
	if err == nil && !k.Known() {
		return errors.New("watching services: the API server has not listed them yet")
	}
	return err
}

// Run implements Source. Watching goes on for some seconds after ctx has ended:
// client-go sleeps without regard to it.
func (k *Kubernetes) Run(ctx context.Context) {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(k.log.Handler()))
	services := k.client.CoreV1().Services(metav1.NamespaceAll)
	go k.contacts[0].follow(ctx, cache.NewReflectorWithOptions(k.contacts[0].listerWatcher(
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return services.List(ctx, o) },
		services.Watch, k.client), &v1.Service{}, serviceStore(k.listed), cache.ReflectorOptions{Name: "services"}))
	endpoints := k.client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	go k.contacts[1].follow(ctx, cache.NewReflectorWithOptions(k.contacts[1].listerWatcher(
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return endpoints.List(ctx, o) },
		endpoints.Watch, k.client), &discovery.EndpointSlice{}, sliceStore(k.listed), cache.ReflectorOptions{Name: "endpointslices"}))
	<-ctx.Done()
}

// contact knows whether the API server answers about one kind of object.
type contact struct {
	what string
	log  *slog.Logger

	mu    sync.Mutex
	err   error     // nil while it does
	since time.Time // of the first of the errors
}

// follow keeps a reflector going until ctx ends.
func (c *contact) follow(ctx context.Context, reflector *cache.Reflector) {
	// The pauses are those of client-go: after a failure of the API server,
	// every node of the cluster is here.
	pauses := wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: 30 * time.Second}
	for pause := pauses; ctx.Err() == nil; {
		start := time.Now()
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			c.lost(err)
		}
		if time.Since(start) > 2*time.Minute {
			pause = pauses
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.Step()):
		}
	}
}

// listerWatcher asks the API server and takes note of how it answers: the reflector
// retries a good part of the failures without a word.
func (c *contact) listerWatcher(
	list func(context.Context, metav1.ListOptions) (runtime.Object, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error), client kubernetes.Interface,
) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = Selector
			objects, err := list(ctx, options)
			c.answered(ctx, err)
			return objects, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = Selector
			w, err := follow(ctx, options)
			if options.SendInitialEvents != nil && apierrors.IsInvalid(err) {
				// An API server older than 1.32 cannot stream a list.
				// The reflector asks for a plain one next.
				return w, err
			}
			c.answered(ctx, err)
			return w, err
		},
	}, client)
}

// check returns what is wrong; nil if nothing.
func (c *contact) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("watching %s: failing since %s: %w", c.what, c.since.UTC().Format(time.RFC3339), c.err)
}

// answered notes the outcome of a call that was not cut off by us.
func (c *contact) answered(ctx context.Context, err error) {
	switch {
	case err == nil:
		c.restored()
	case ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err):
		c.lost(err)
	}
}

// lost notes a failure; only the first is logged.
func (c *contact) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.since = time.Now()
		c.log.Warn("cannot be watched: what is known stays, retrying", "objects", c.what, "err", err)
	}
	c.err = err
}

// restored notes that the API server answers.
func (c *contact) restored() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.log.Info("are watched again", "objects", c.what, "after", time.Since(c.since).Round(time.Millisecond))
	}
	c.err = nil
}
