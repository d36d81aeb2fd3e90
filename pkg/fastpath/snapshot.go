package fastpath

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// Snapshot reads what is remembered, on any goroutine: with 100,000 flows that takes longer
// than the keeper's own goroutine has.
type Snapshot struct {
	flows      *ebpf.Map // nil where the keeper has none
	generation uint32
}

// Snapshot returns one, which is to be closed.
func (k *Keeper) Snapshot() (*Snapshot, error) {
	if k.programs == nil {
		return &Snapshot{}, nil
	}
	flows, err := k.programs.Flows.Clone()
	if err != nil {
		return nil, fmt.Errorf("opening the flows: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Snapshot{flows, k.generation}, nil
}

// Close ends the reading.
func (s *Snapshot) Close() {
	if s.flows != nil {
		s.flows.Close()
	}
}

// Most returns the flows that are wanted and of which a direction is in force, those with
// the most bytes first, and how many more there are. It is no more than most of them; 0 is
// all.
func (s *Snapshot) Most(most int, wanted func(Flow) bool) (all []Flow, more int, err error) {
	at, err := now()
	if err != nil {
		return nil, 0, err
	}
	began := time.Now().Add(-at)
	shorten := func() {
		slices.SortFunc(all, func(a, b Flow) int {
			return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Protocol, b.Protocol))
		})
		if most > 0 && len(all) > most {
			more += len(all) - most
			all = all[:most]
		}
	}
	err = s.each(func(key *programKey, f *programFlow) {
		if !f.inForce(s.generation, at) {
			return
		}
		one := Flow{
			Protocol: protocolName(key.Protocol),
			From:     addressOf(key.Low, key.LowPort, key.Family), To: addressOf(key.High, key.HighPort, key.Family),
			There: wayOf(f.FromLow), Back: wayOf(f.FromHigh),
			Since:  began.Add(time.Duration(f.Since)),
			Active: f.FromLow.Generation == s.generation && f.FromHigh.Generation == s.generation,
		}
		if !wanted(one) {
			return
		}
		const batch = 1000
		if all = append(all, one); most > 0 && len(all) >= 2*most+batch {
			shorten()
		}
	})
	shorten()
	return all, more, err
}

// count returns how many flows there are of which a direction is in force.
func (s *Snapshot) count() (n int, err error) {
	at, err := now()
	if err != nil {
		return 0, err
	}
	err = s.each(func(_ *programKey, f *programFlow) {
		if f.inForce(s.generation, at) {
			n++
		}
	})
	return n, err
}

// each calls f for all entries.
func (s *Snapshot) each(f func(key *programKey, flow *programFlow)) error {
	if s.flows == nil {
		return nil
	}
	const step = 1024
	keys, flows := make([]programKey, step), make([]programFlow, step)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := s.flows.BatchLookup(&cursor, keys, flows, nil)
		for i := range n {
			f(&keys[i], &flows[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil // the end
		}
		if err != nil {
			return fmt.Errorf("reading the flows: %w", err)
		}
	}
}

// Counted is how many flows there were at a time.
type Counted struct {
	Flows int
	At    time.Time
}

// counting is a count on a goroutine of its own.
type counting struct {
	mu      sync.Mutex
	running chan struct{} // closed when the count is over; nil while none runs
	last    Counted
	err     error
}

// begin has flows counted, unless they are, and returns what is closed when that is over.
func (c *counting) begin(open func() (*Snapshot, error)) (over <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return c.running
	}
	running := make(chan struct{})
	s, err := open()
	if err != nil {
		c.err = err
		close(running)
		return running
	}
	c.running = running
	go func() {
		defer close(running)
		defer s.Close()
		at := time.Now()
		n, err := s.count()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running, c.err = nil, err; err == nil {
			c.last = Counted{n, at}
		}
	}()
	return running
}

// Count returns how many flows are remembered. Where counting takes longer than patience,
// it is how many there were when they were counted last.
func (k *Keeper) Count(patience time.Duration) (Counted, error) {
	over := k.counting.begin(k.Snapshot)
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-over:
	case <-enough.C:
	}
	k.counting.mu.Lock()
	defer k.counting.mu.Unlock()
	return k.counting.last, k.counting.err
}
