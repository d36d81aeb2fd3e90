// Package apiwatch keeps client-go's reflectors going, and knows since when the
// Kubernetes API has not answered about what they watch.
package apiwatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Contact knows whether the API server answers about one kind of object. Its
// methods may be called at the same time.
type Contact struct {
	what string // "nodes", for log and errors
	log  *slog.Logger

	mu    sync.Mutex
	err   error     // nil while it does
	since time.Time // of the first of the errors
}

// New returns the contact for a kind of object, as people call it: "nodes".
func New(what string, log *slog.Logger) *Contact { return &Contact{what: what, log: log} }

// Follow has a store told of all objects of a resource, each of the type of object, until
// ctx ends. A selector that is not empty is of labels. It may outlive ctx by up to a
// minute: client-go sleeps without regard to it.
func (c *Contact) Follow(ctx context.Context, of Resource, selector string, object any, store cache.ReflectorStore) {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(c.log.Handler()))
	reflector := cache.NewReflectorWithOptions(c.listerWatcher(of, selector), object, store, cache.ReflectorOptions{Name: c.what})
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
func (c *Contact) listerWatcher(of Resource, selector string) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			objects, err := of.list(ctx, options)
			c.answered(ctx, err)
			return objects, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			w, err := of.watch(ctx, options)
			if options.SendInitialEvents != nil && apierrors.IsInvalid(err) {
				// An API server older than 1.32 cannot stream a list.
				// The reflector asks for a plain one next.
				return w, err
			}
			c.answered(ctx, err)
			return w, err
		},
	}
}

// Check returns what is wrong, and since when; nil if nothing.
func (c *Contact) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("watching %s: failing since %s: %w", c.what, c.since.UTC().Format(time.RFC3339), c.err)
}

// answered notes the outcome of a call that was not cut off by us.
func (c *Contact) answered(ctx context.Context, err error) {
	switch {
	case err == nil:
		c.restored()
	case ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err):
		c.lost(err)
	}
}

// lost notes a failure; only the first is logged.
func (c *Contact) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.since = time.Now()
		c.log.Warn(c.what+" cannot be watched: the list known stays, retrying", "err", err)
	}
	c.err = err
}

// restored notes that the API server answers.
func (c *Contact) restored() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.log.Info(c.what+" are watched again", "after", time.Since(c.since).Round(time.Millisecond))
	}
	c.err = nil
}
