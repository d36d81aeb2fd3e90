package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// Writer writes Leases.
type Writer interface {
	CreateLease(context.Context, *coordination.Lease) error
	PatchLease(ctx context.Context, namespace, name string, patch []byte) error
}

// Holder renews a Lease.
type Holder struct {
	Writer          Writer
	Table           *Table
	Namespace, Name string
	Purpose         string // the value of [Label]
	Identity        string // unlike anybody else's, also a former process's of this node
	// Contended says that others want the Lease too: it is taken only where nobody has
	// it. Else it is this node's own.
	Contended bool
	// Duration is how long the Lease is the holder's without being renewed, Interval
	// how often it is.
	Duration, Interval time.Duration
	// Became is called when the Lease is won, lost, or could not be written.
	Became func()
	// Renewed is called when a renewal was seen. It must not wait, nor ask the holder.
	Renewed func()

	now       func() time.Time
	poked     loop.Signal
	confirmed loop.Signal

	mu       sync.Mutex
	says     map[string]string // annotations
	said     map[string]string // those that the API server has; nil before it has any
	saying   map[string]string
	begun    map[int64]time.Time // of renewals that were not seen yet, when they began, by what was written
	from     time.Time           // when the last renewal began that was seen
	lapses   uint64              // how often it was not the holder's before it was
	resting  bool
	reported bool // what Became was called for
	err      error
	written  int64     // microseconds since 1970
	taken    time.Time // when the last renewal was begun that the API server has taken
}

// Start prepares to hold; Run does.
func (h *Holder) Start() {
	if h.now == nil {
		h.now = time.Now
	}
	h.poked, h.confirmed = loop.NewSignal(), loop.NewSignal()
	h.begun = map[int64]time.Time{}
	h.Table.listens(h.see)
}

// Say has the Lease say something else, at once.
func (h *Holder) Say(annotations map[string]string) {
	h.mu.Lock()
	same := maps.Equal(h.says, annotations)
	h.says = maps.Clone(annotations)
	h.mu.Unlock()
	if !same {
		h.poked.Give()
	}
}

// Rest has the Lease run out, and nobody see it renewed, until it is to be held again.
func (h *Holder) Rest(rest bool) {
	h.mu.Lock()
	before := h.resting
	h.resting = rest
	h.mu.Unlock()
	if before && !rest {
		h.poked.Give()
	}
}

// Renew renews the Lease without waiting for the next time.
func (h *Holder) Renew() { h.poked.Give() }

// see notes a renewal that the watch has brought. It is called with the table's lock.
func (h *Holder) see(s Seen) {
	if s.Name != h.Name {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.Holder != h.Identity {
		h.from = time.Time{}
		h.confirmed.Give()
		return
	}
	if from, is := h.begun[s.renewed]; is && from.After(h.from) {
		if from.After(h.from.Add(h.Duration)) {
			h.lapses++
		}
		h.from = from
		for written, begun := range h.begun {
			if !begun.After(from) {
				delete(h.begun, written)
			}
		}
	}
	h.confirmed.Give()
	if h.Renewed != nil {
		h.Renewed()
	}
}

// Lapses counts how often the Lease was not the holder's before it was: what somebody
// else has done meanwhile is not known.
func (h *Holder) Lapses() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lapses
}

// Until is when the Lease is no longer the holder's, if it is not renewed; the zero time
// where it is not. From is when the renewal began that this follows from.
func (h *Holder) Until() (until, from time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from.IsZero() {
		return time.Time{}, time.Time{}
	}
	return h.from.Add(h.Duration), h.from
}

// Valid reports whether the Lease is the holder's.
func (h *Holder) Valid() bool {
	until, _ := h.Until()
	return h.now().Before(until)
}

// Err is why the Lease could not be written last; nil where it could.
func (h *Holder) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Unseen reports whether the API server has taken a renewal that the watch has not brought.
func (h *Holder) Unseen() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err == nil && h.taken.After(h.from)
}

// retry is the pause after a renewal that failed.
const retry = 250 * time.Millisecond

// Run renews until ctx ends. The Lease is not given back then: who comes back in time
// still has it.
func (h *Holder) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.confirmed:
		case <-expiry.C:
		case <-timer.C:
			timer.Reset(h.try(ctx))
		case <-h.poked:
			timer.Reset(h.try(ctx))
		}
		h.report()
		if until, _ := h.Until(); !until.IsZero() {
			expiry.Reset(max(until.Sub(h.now()), 0) + time.Millisecond)
		}
		if h.Contended && !h.Valid() {
			// It may have become free.
			timer.Reset(h.wait())
		}
	}
}

// wait is how long a Lease that is somebody else's is left alone.
func (h *Holder) wait() time.Duration {
	s, is := h.Table.Get(h.Name)
	if !h.Table.Known() || is && s.Holder == h.Identity {
		return retry
	}
	if !is || s.Holder == "" {
		return retry / 4
	}
	// Not all who wait ask at the same moment.
	return max(s.At.Add(h.Duration).Sub(h.now()), 0) + retry/4 + rand.N(2*retry)
}

// report calls Became where the Lease was won or lost.
func (h *Holder) report() {
	valid := h.Valid()
	h.mu.Lock()
	same := h.reported == valid
	h.reported = valid
	h.mu.Unlock()
	if !same && h.Became != nil {
		h.Became()
	}
}

// try renews, and returns when to do so again.
func (h *Holder) try(ctx context.Context) time.Duration {
	h.mu.Lock()
	// Who no longer renews it says so with the last renewal: others need not wait then.
	rests := h.resting && (h.said == nil || maps.Equal(h.said, h.says))
	h.mu.Unlock()
	if rests {
		return time.Hour
	}
	if !h.Table.Known() {
		return retry
	}
	s, is := h.Table.Get(h.Name)
	if h.Contended && is && s.Holder != "" && s.Holder != h.Identity && h.now().Before(s.At.Add(h.Duration)) {
		return h.wait()
	}
	limited, cancel := context.WithTimeout(ctx, h.Interval)
	defer cancel()
	begun := h.now()
	err := h.write(limited, s, is)
	taken := err == nil
	if h.Contended && (apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)) {
		err = nil // somebody else was first
	}
	if ctx.Err() != nil {
		return h.Interval
	}
	h.mu.Lock()
	before := h.err
	if h.err = err; taken {
		h.taken, h.said = begun, h.saying
	}
	h.mu.Unlock()
	if (before == nil) != (err == nil) && h.Became != nil {
		h.Became()
	}
	if err != nil {
		return retry
	}
	return h.Interval
}

func (h *Holder) write(ctx context.Context, s Seen, is bool) error {
	begun := h.now()
	h.mu.Lock()
	// Written so, two renewals are told apart, whatever the clock does.
	written := max(begun.UnixMicro(), h.written+1)
	h.written = written
	h.begun[written] = begun
	says := maps.Clone(h.says)
	h.saying = says
	h.mu.Unlock()
	seconds := int32((h.Duration + time.Second - 1) / time.Second)
	spec := coordination.LeaseSpec{HolderIdentity: &h.Identity, LeaseDurationSeconds: &seconds, RenewTime: &metav1.MicroTime{Time: time.UnixMicro(written)}}
	if !is {
		err := h.Writer.CreateLease(ctx, &coordination.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: h.Namespace, Name: h.Name, Labels: map[string]string{Label: h.Purpose}, Annotations: says}, Spec: spec,
		})
		if err == nil {
			return nil
		}
		if !apierrors.IsAlreadyExists(err) || h.Contended {
			return fmt.Errorf("creating Lease %s/%s: %w", h.Namespace, h.Name, err)
		}
	}
	meta := map[string]any{"labels": map[string]string{Label: h.Purpose}}
	annotations := map[string]any{}
	for name := range s.Annotations {
		annotations[name] = nil // of a merge patch: it is removed
	}
	for name, value := range says {
		annotations[name] = value
	}
	if len(annotations) > 0 {
		meta["annotations"] = annotations
	}
	if h.Contended {
		meta["resourceVersion"] = s.version
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta, "spec": spec})
	if err != nil {
		return fmt.Errorf("encoding Lease %s: %w", h.Name, err)
	}
	if err := h.Writer.PatchLease(ctx, h.Namespace, h.Name, patch); err != nil {
		return fmt.Errorf("renewing Lease %s/%s: %w", h.Namespace, h.Name, err)
	}
	return nil
}
