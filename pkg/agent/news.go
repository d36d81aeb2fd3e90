package agent

import (
	"sync"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// news is what the kernel has to tell, until the agent's one goroutine takes it.
// Nothing ever waits for that: what is new joins what is there.
type news struct {
	signal loop.Signal // holds one value while there is something, or a task was asked for
	mu     sync.Mutex
	events []kernel.Event
}

func newNews() *news { return &news{signal: loop.NewSignal()} }

// maximumEvents bounds the memory for what the kernel tells while the agent is
// at work; beyond it everything is looked at anew anyway.
const maximumEvents = 100_000

func (n *news) event(e kernel.Event) {
	n.mu.Lock()
	if len(n.events) >= maximumEvents {
		n.events, e = n.events[:0], kernel.Event{Lost: true, Pods: true}
	}
	n.events = append(n.events, e)
	n.mu.Unlock()
	n.wake()
}

// wake has the agent look for news.
func (n *news) wake() {
	n.signal.Give()
}

func (n *news) take() []kernel.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	events := n.events
	n.events = nil
	return events
}
