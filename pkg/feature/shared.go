package feature

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/health"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// Shared is what the features of an agent have in common.
type Shared struct {
	Facts
	Log *slog.Logger
	// Publish has all features follow facts that one of them changed, in their order.
	// What fails does not stop the rest.
	Publish func(News) error
	// Repaired counts objects that somebody had changed and that were made again.
	Repaired func(object string, count int)
	// Do calls a function between two tasks, from any other goroutine. It fails where
	// the agent is busy for longer than the context allows.
	Do func(context.Context, func()) error
	// Decide has everything decided anew about flows that are established, from the next
	// packet on. It does not wait, and may be called from any goroutine.
	Decide func()
	// Rest has memory given back that something large took and that is not needed until
	// the next time. It does not wait, and may be called from any goroutine.
	Rest func()
}

// Facts are what features know of one another. Each has one feature that writes it;
// it belongs to the agent's goroutine.
type Facts struct {
	// Kernel says what this kernel lacks of what the node needs. It is known from the
	// start.
	Kernel requirements.Report
	// Optional is the same of what is used only where it is there.
	Optional requirements.Report
	// Nodes is the list as the source has it, sorted by name; nil until it is known.
	Nodes []node.Node
	// Accepted are the nodes that can be joined, sorted by name.
	Accepted []node.Node
	// Underlay is what the node has without flatnet.
	Underlay kernel.Underlay
	// Plan joins the node to the others; nil until there is one.
	Plan *fabric.Plan
	// Learned are the routes that routers have told of; nobody writes to what was given.
	Learned fabric.Learned
	// Fabric knows what of the plan is in the kernel. Others than its writer only ask it.
	Fabric *fabric.Engine
	// Prober knows whether packets get through to others; nil where nobody is probed.
	Prober *health.Prober
	// Made says that the kernel had all that peers share, once: pods can be started.
	Made bool
	// LooseSources says that the kernel does not check by itself that a pod sends from
	// its own IPv4 address.
	LooseSources bool
	// Services says that Services are balanced.
	Services bool
	// FastPath says that packets of established flows go past connection tracking, or are
	// about to.
	FastPath bool
	// Filters says that this is done by filters of traffic control, and that interfaces are
	// made with the qdisc that holds them. It is known from the start.
	Filters bool
}

// News says which facts are new.
type News int

// The facts of which features are told.
const (
	KernelChanged  News = iota // Kernel
	NodesListed                // Nodes
	FabricPlanned              // Accepted, Underlay, Plan; nothing of it is in the kernel yet
	FabricMade                 // Made
	FabricJoined               // the kernel has what was planned, but for what it refused
	SourcesChanged             // LooseSources
	PathChanged                // FastPath, Filters
	RoutesLearned              // Learned
)

// Find returns the node of a name as it was accepted last.
func (f *Facts) Find(name string) (n node.Node, found bool) { return find(f.Accepted, name) }

// Listed returns the node of a name as the source has it.
func (f *Facts) Listed(name string) (n node.Node, found bool) { return find(f.Nodes, name) }

func find(sorted []node.Node, name string) (n node.Node, found bool) {
	i, found := slices.BinarySearchFunc(sorted, name, func(n node.Node, name string) int {
		return strings.Compare(n.Name, name)
	})
	if !found {
		return n, false
	}
	return sorted[i], true
}

// TablesPossible reports whether the kernel has nf_tables.
func (f *Facts) TablesPossible() bool {
	return !slices.ContainsFunc(f.Kernel.Missing, func(m requirements.Missing) bool { return m.IsNftables() })
}

// OncePlanned makes the work of a task that has nothing to go by without a plan.
func (f *Facts) OncePlanned(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if f.Plan == nil {
			return ErrNotYet
		}
		return run(ctx)
	}
}
