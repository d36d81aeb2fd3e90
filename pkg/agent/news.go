package agent

import (
	"sync"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/node"
)

// news is what the agent's sources have to tell, until its one goroutine takes
// it. Nothing ever waits for that: what is new replaces or joins what is there.
type news struct {
	mu     sync.Mutex
	signal chan struct{} // holds one value while there is something
	batch  batch
}

// batch is what came since the last look.
type batch struct {
	nodes  []node.Node // nil where there are no new ones
	events []kernel.Event
	tasks  [numberOfTasks]bool // asked for by somebody who saw a reason
}

func newNews() *news { return &news{signal: make(chan struct{}, 1)} }

// maximumEvents bounds the memory for what the kernel tells while the agent is
// at work; beyond it everything is looked at anew anyway.
const maximumEvents = 100_000

func (n *news) add(f func(*batch)) {
	n.mu.Lock()
	f(&n.batch)
	n.mu.Unlock()
	select {
	case n.signal <- struct{}{}:
	default:
	}
}

func (n *news) nodes(list []node.Node) { n.add(func(b *batch) { b.nodes = list }) }

func (n *news) event(e kernel.Event) {
	n.add(func(b *batch) {
		if len(b.events) >= maximumEvents {
			b.events = append(b.events[:0], kernel.Event{Lost: true, Pods: true})
			return
		}
		b.events = append(b.events, e)
	})
}

func (n *news) ask(t task) { n.add(func(b *batch) { b.tasks[t] = true }) }

func (n *news) take() batch {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.batch
	n.batch = batch{}
	return b
}
