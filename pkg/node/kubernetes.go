package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// settle is how long Kubernetes waits after a change for the next one, so that nodes that
// change together are one list.
const settle = 5 * time.Millisecond

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
	client  *apiwatch.Client
	listed  *listed
	contact *apiwatch.Contact
	log     *slog.Logger
}

// NewKubernetes returns a source that watches Nodes with client, on the node of the
// name own.
func NewKubernetes(client *apiwatch.Client, own string, log *slog.Logger) *Kubernetes {
	return &Kubernetes{client: client, listed: newListed(own), contact: apiwatch.New("nodes", log), log: log}
}

// Check implements Source. The error says since when the API server has not
// answered, and how.
func (k *Kubernetes) Check() error {
	if err := k.contact.Check(); err != nil {
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
	go k.contact.Follow(ctx, k.client.Nodes(), "", &v1.Node{}, k.listed)
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

// sleep waits; it reports whether ctx lasted as long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
