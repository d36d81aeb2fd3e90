package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// askAgain is how often the API server is asked whether it knows ClusterNetworkPolicies.
const askAgain = time.Minute

// Kubernetes is a Source that watches a Kubernetes cluster. It needs the right to list and
// watch NetworkPolicies, ClusterNetworkPolicies, namespaces, pods and nodes, and no other.
//
// Most clusters have no policies: namespaces and pods are watched while there is one, and
// the last that goes takes them along. Nodes are while one of them names some. Of the kinds of policies, ClusterNetworkPolicy is
// not part of Kubernetes. Whether it is there is asked again and again.
//
// While the API server is not reachable it retries for ever, and what is known stays.
type Kubernetes struct {
	client *apiwatch.Client
	listed *listed
	log    *slog.Logger
	again  time.Duration // askAgain

	mu       sync.Mutex
	contacts [kinds]*apiwatch.Contact // nil for what is not watched
	asking   error                    // why it is not known whether there are ClusterNetworkPolicies
}

var _ Source = (*Kubernetes)(nil)

// NewKubernetes returns a source that watches with client.
func NewKubernetes(client *apiwatch.Client, log *slog.Logger) *Kubernetes {
	return &Kubernetes{client: client, listed: newListed(), log: log, again: askAgain}
}

// Changed implements Source.
func (k *Kubernetes) Changed() <-chan struct{} { return k.listed.changed }

// Take implements Source.
func (k *Kubernetes) Take() Batch { return k.listed.take() }

// Known implements Source.
func (k *Kubernetes) Known() bool { return k.listed.known() }

// Unread returns the objects that cannot be understood, with what is wrong. A Batch has
// what they were before.
func (k *Kubernetes) Unread() []Unread { return k.listed.why() }

// Check implements Source. The error says since when the API server has not answered, and
// how.
func (k *Kubernetes) Check() error {
	k.mu.Lock()
	all := []error{k.asking}
	for _, c := range k.contacts {
		if c != nil {
			all = append(all, c.Check())
		}
	}
	k.mu.Unlock()
	if err := errors.Join(all...); err != nil {
		return err
	}
	if missing := k.listed.missing(); missing != "" {
		return fmt.Errorf("watching %s: the API server has not listed them yet", missing)
	}
	return nil
}

// Run follows the cluster until ctx ends. Watching goes on for some seconds after that:
// client-go sleeps without regard to it.
func (k *Kubernetes) Run(ctx context.Context) {
	follow(ctx, k, k.client.NetworkPolicies(), &networking.NetworkPolicy{}, networkPolicyStore(k.listed))
	go k.followClusterPolicies(ctx)
	go func() {
		for k.await(ctx, nodes, true) {
			k.followNodes(ctx)
		}
	}()
	for k.await(ctx, pods, true) {
		k.followSubjects(ctx)
	}
}

// follow has a store told of all objects of its kind, until ctx ends.
func follow[T any, K comparable](ctx context.Context, k *Kubernetes, of apiwatch.Resource, object T, s *store[T, K]) {
	c := apiwatch.New(s.kind.String(), k.log)
	k.contact(s.kind, c)
	// Nobody waits for this to end: client-go sleeps without regard to ctx.
	go c.Follow(ctx, of, "", object, s)
}

func (k *Kubernetes) contact(of kind, c *apiwatch.Contact) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.contacts[of] = c
}

// await waits until a kind of objects is needed, or not; it reports whether ctx lasted as
// long. Of each kind one may wait at a time.
func (k *Kubernetes) await(ctx context.Context, of kind, needed bool) bool {
	changed := k.listed.policed
	if of == nodes {
		changed = k.listed.naming
	}
	for k.listed.needed(of) != needed {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
	return ctx.Err() == nil
}

// followSubjects watches whom policies are about until there is none, or ctx ends.
func (k *Kubernetes) followSubjects(ctx context.Context) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	spaces, all := namespaceStore(k.listed), podStore(k.listed)
	k.log.Debug("there are policies: watching namespaces and pods")
	follow(inner, k, k.client.Namespaces(), &v1.Namespace{}, spaces)
	follow(inner, k, k.client.Pods(), &apiwatch.Pod{}, all)
	for k.await(ctx, pods, false) {
		if k.endSubjects(spaces, all) {
			k.log.Debug("there are no policies: namespaces and pods are not watched any more")
			return
		}
	}
}

// endSubjects forgets namespaces and pods, unless there is a policy again.
func (k *Kubernetes) endSubjects(spaces *store[*v1.Namespace, string], all *store[*apiwatch.Pod, Name]) bool {
	k.listed.mu.Lock()
	defer k.listed.mu.Unlock()
	if len(k.listed.policies) > 0 {
		return false
	}
	spaces.end(false)
	all.end(false)
	k.contact(namespaces, nil)
	k.contact(pods, nil)
	return true
}

// followNodes watches nodes until no policy names any, or ctx ends.
func (k *Kubernetes) followNodes(ctx context.Context) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	all := nodeStore(k.listed)
	k.log.Debug("there are policies that name nodes: watching nodes")
	follow(inner, k, k.client.Nodes(), &v1.Node{}, all)
	for k.await(ctx, nodes, false) {
		if k.endNodes(all) {
			k.log.Debug("there are no policies that name nodes: they are not watched any more")
			return
		}
	}
}

// endNodes forgets nodes, unless there is a policy again that names some.
func (k *Kubernetes) endNodes(all *store[*v1.Node, string]) bool {
	k.listed.mu.Lock()
	defer k.listed.mu.Unlock()
	if k.listed.needs(nodes) {
		return false
	}
	all.end(false)
	k.contact(nodes, nil)
	return true
}

// followClusterPolicies watches ClusterNetworkPolicies while the API server knows them.
func (k *Kubernetes) followClusterPolicies(ctx context.Context) {
	var watched *clusterWatch
	gone := loop.NewSignal()
	for {
		version, err := k.client.FindClusterNetworkPolicies(ctx)
		if ctx.Err() != nil {
			return
		}
		k.asked(err, watched != nil)
		if apierrors.IsForbidden(err) && watched == nil {
			// Whoever may not list them is told so too where they are not installed. The
			// NetworkPolicies are in force without them, and Check says that something is
			// missing.
			k.watchClusterPolicies(ctx, "", func() {})
		}
		if err == nil && (watched == nil || watched.version != version) {
			if watched != nil {
				watched.end()
			}
			watched = k.watchClusterPolicies(ctx, version, gone.Give)
		}
		// Not all nodes at the same time.
		pause := k.again/2 + rand.N(k.again)
		if err != nil {
			pause /= 10
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-gone:
		}
	}
}

// asked notes how the API server answered whether it knows ClusterNetworkPolicies. While
// they are watched, or known not to be there, a failure tells nothing new: the others'
// contacts know of it.
func (k *Kubernetes) asked(err error, answeredBefore bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.asking = nil
	case !answeredBefore:
		if k.asking == nil {
			k.log.Warn("it cannot be found out whether there are ClusterNetworkPolicies: retrying", "err", err)
		}
		k.asking = fmt.Errorf("asking for ClusterNetworkPolicies: %w", err)
	}
}

// clusterWatch is the watching of ClusterNetworkPolicies of a version of the API; of none
// where the API server does not know them.
type clusterWatch struct {
	version string
	end     func()
}

func (k *Kubernetes) watchClusterPolicies(ctx context.Context, version string, gone func()) *clusterWatch {
	s := clusterPolicyStore(k.listed)
	if version == "" {
		k.contact(clusterPolicies, nil)
		k.listed.mu.Lock()
		s.end(true)
		k.listed.mu.Unlock()
		return &clusterWatch{end: func() {}}
	}
	k.log.Info("watching ClusterNetworkPolicies", "version", version)
	inner, cancel := context.WithCancel(ctx)
	follow(inner, k, k.client.ClusterNetworkPolicies(version).WhenGone(gone), &apiwatch.ClusterNetworkPolicy{}, s)
	return &clusterWatch{version: version, end: func() {
		cancel()
		k.listed.mu.Lock()
		defer k.listed.mu.Unlock()
		s.closed = true // what it has told stays until the next one knows
	}}
}
