// Package feature is the shape of what flatnetd does. Each feature is a value that
// brings all that it has: what it listens to, its tasks, its problems, its part of
// the status, of the metrics and of the cleanup. The agent has a list of them and
// knows nothing else of any.
//
// All of a feature's functions are called on the agent's one goroutine, so there is
// nothing to lock; only what says otherwise may be called from elsewhere.
package feature

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Feature is something that flatnetd does. What it does not have is left out.
type Feature struct {
	// Open gets what the feature works with; an agent without it does not begin.
	Open func() error
	// Begin is called once, when no other flatnetd works on the node any more and
	// before anybody listens. Where it fails, the agent ends.
	Begin func() error
	// Close lets go of what Open got. What the feature made on the node stays.
	Close func()

	// Tasks are its pieces of work. Of those that are due, the first is done first,
	// and those of an earlier feature before those of a later one.
	Tasks []*Task
	// Follow is called when others' facts are new.
	Follow func(News) error

	// Listeners run beside, each on a goroutine of its own.
	Listeners []Listener
	// Event is told what the kernel notifies of links, addresses, routes and neighbours.
	Event func(kernel.Event)
	// Tables returns who is told, on another goroutine, of changes of nftables. It is
	// not asked where the kernel has none.
	Tables func() (nft.Listener, error)

	// Problems are all that keeps the feature from being as it should, without its
	// tasks that failed: these are known.
	Problems func() []problem.Problem
	// Ready says why the node cannot serve pods yet.
	Ready func() error
	// UpToDate says why what a ready node does may no longer be what it should.
	UpToDate func() error

	// Status is the feature's part of `flatnetd status`.
	Status func(context.Context) Part
	// Pages are served at their paths, over the socket of `flatnetd status` only, on
	// goroutines of the server.
	Pages map[string]http.HandlerFunc

	// Metrics are collected on goroutines of the server.
	Metrics []prometheus.Collector
	// Gauges are metrics that only the agent's goroutine can read.
	Gauges []Gauge
	// Repairs are the labels that flatnet_repairs_total has from the start, so that
	// the first repair is an increase.
	Repairs []string

	// Cleanup is what `flatnetd cleanup` does.
	Cleanup Removal
}

// Listener waits for what concerns a feature, and has tasks done then: see
// [Task.Ask]. It ends with its context. If it fails before, the agent ends.
type Listener struct {
	Name string // is before the error
	Run  func(context.Context) error
}

// Part is what a feature says of itself in the status.
type Part struct {
	// Document becomes an object in JSON whose fields join those of the status.
	Document any
	// Brief is in the place of Document where the answer is to be short; nil where that
	// is short anyway.
	Brief any
	Rows  []Row
	// Table is written below the rows of all features; nil for none.
	Table func(w io.Writer, now time.Time)
}

// Row is a line of the status for people.
type Row struct{ Name, Value string }

// Gauge is a metric that is asked for when it is read.
type Gauge struct {
	Description *prometheus.Desc
	// Counts says that it is a counter: its name ends in _total.
	Counts bool
	// Read tells a value for each set of labels; none where there is none.
	Read func(ctx context.Context, tell func(value float64, labels ...string))
}

// Removal takes away everything that a feature ever made on the node, and nothing
// else. No agent runs then: it is called without Open, Begin and Close.
type Removal struct {
	At Stage
	// Do returns what it removed, a line each. Nil where nothing is to be removed.
	Do func(context.Context) (removed []string, err error)
}

// Stage is when something is removed. What is removed in the same stage goes in the
// order of the features.
type Stage int

// The stages, in their order. What says nothing goes last.
const (
	BeforePods Stage = iota - 2 // what has pods attached: none is meanwhile
	WithPods
	AfterPods
)
