package service

import (
	"context"
	"errors"
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
	watch  *Watch
	listed *listed
}

// NewKubernetes returns a source of what a watch tells, which does not run yet.
func NewKubernetes(w *Watch) *Kubernetes {
	k := &Kubernetes{watch: w, listed: newListed()}
	w.Tell(false, serviceStore(k.listed), sliceStore(k.listed))
	return k
}

// KeepLabels has Services keep their labels, for who chooses by them. It is to be called
// before Run.
func (k *Kubernetes) KeepLabels() { k.listed.labels = true }

// Changed implements Source.
func (k *Kubernetes) Changed() <-chan struct{} { return k.listed.changed }

// Take implements Source.
func (k *Kubernetes) Take() Batch { return k.listed.take() }

// Known implements Source.
func (k *Kubernetes) Known() bool { return k.listed.known() }

// Changes counts what the API server has told. It does not wait for anybody.
func (k *Kubernetes) Changes() Changes { return k.listed.changes() }

// Check implements Source. The error says since when the API server has not
// answered, and how.
func (k *Kubernetes) Check() error {
	err := k.Lost()
	if err == nil && !k.Known() {
		return errors.New("watching services: the API server has not listed them yet")
	}
	return err
}

// Lost is Check, but for a source that has not been answered yet.
func (k *Kubernetes) Lost() error { return k.watch.Check() }

// Run implements Source.
func (k *Kubernetes) Run(ctx context.Context) { k.watch.Run(ctx) }
