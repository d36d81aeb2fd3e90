package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Kubernetes is a Source that watches the Nodes of a Kubernetes cluster; it
// needs the right to get, list and watch them, and no other. A node's addresses
// are those of type InternalIP, and its index in a Refusal counts these only.
//
// It is built on client-go's Reflector and not on an informer around one: what
// is kept is a map of Node values, so that 5,000 nodes cost some megabytes
// whatever is in their status, and a relist is one change and not thousands.
//
// While the API server is not reachable it retries for ever, with pauses that
// grow up to a minute, and the list delivered last stays.
type Kubernetes struct {
	client  kubernetes.Interface
	listed  *listed
	contact *contact
	log     *slog.Logger
}

// NewKubernetes returns a source that watches Nodes with client.
func NewKubernetes(client kubernetes.Interface, log *slog.Logger) *Kubernetes {
	return &Kubernetes{client: client, listed: newListed(), contact: &contact{log: log}, log: log}
}

// Check implements Source. The error says since when the API server has not
// answered, and how.
func (k *Kubernetes) Check() error {
	if err := k.contact.check(); err != nil {
		return err
	}
	switch n, known := k.listed.count(); {
	case !known:
		return errors.New("watching nodes: the API server has not listed them yet")
	case n == 0:
		return errors.New("watching nodes: the API server lists zero nodes, which is taken for a mistake; those known before stay")
	}
	return nil
}

// Run implements Source. A change is delivered some milliseconds after the API
// server has told of it.
func (k *Kubernetes) Run(ctx context.Context, deliver func([]Node)) error {
	// Nobody waits for this to end: client-go sleeps without regard to ctx.
	go k.watch(klog.NewContext(ctx, logr.FromSlogHandler(k.log.Handler())))
	var last []Node
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.listed.changed:
		}
		if !sleep(ctx, settle) {
			return nil
		}
		nodes := k.listed.sorted()
		if len(nodes) == 0 || slices.EqualFunc(nodes, last, Node.Equal) {
			continue
		}
		if last == nil {
			k.log.Info("nodes listed", "nodes", len(nodes))
		}
		last = nodes
		deliver(nodes)
	}
}

// watch keeps the list up to date until ctx ends.
func (k *Kubernetes) watch(ctx context.Context) {
	reflector := cache.NewReflectorWithOptions(k.listerWatcher(), &v1.Node{}, k.listed, cache.ReflectorOptions{Name: "nodes"})
	// The pauses are those of client-go: after a failure of the API server,
	// every node of the cluster is here.
	pauses := wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: 30 * time.Second}
	for pause := pauses; ctx.Err() == nil; {
		start := time.Now()
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			k.contact.lost(err)
		}
		if time.Since(start) > 2*time.Minute {
			pause = pauses
		}
		if !sleep(ctx, pause.Step()) {
			return
		}
	}
}

// listerWatcher asks the API server for Nodes and takes note of how it answers:
// the reflector retries a good part of the failures without a word.
func (k *Kubernetes) listerWatcher() cache.ListerWatcher {
	nodes := k.client.CoreV1().Nodes()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := nodes.List(ctx, options)
			k.contact.answered(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w, err := nodes.Watch(ctx, options)
			if options.SendInitialEvents != nil && apierrors.IsInvalid(err) {
				// An API server older than 1.32 cannot stream a list.
				// The reflector asks for a plain one next.
				return w, err
			}
			k.contact.answered(ctx, err)
			return w, err
		},
	}, k.client)
}

// contact knows whether the API server answers.
type contact struct {
	log *slog.Logger

	mu    sync.Mutex
	err   error     // nil while it does
	since time.Time // of the first of the errors
}

// check returns what is wrong; nil if nothing.
func (c *contact) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("watching nodes: failing since %s: %w", c.since.UTC().Format(time.RFC3339), c.err)
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
		c.log.Warn("nodes cannot be watched: the list known stays, retrying", "err", err)
	}
	c.err = err
}

// restored notes that the API server answers.
func (c *contact) restored() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.log.Info("nodes are watched again", "after", time.Since(c.since).Round(time.Millisecond))
	}
	c.err = nil
}
