// Package lease keeps Leases of the Kubernetes API, and knows who else does: a Lease is
// its holder's for as long as the holder renews it.
//
// No clock is compared with another one's. A holder has its lease for a time after it
// began to renew it, and only if its own watch has brought that renewal. So who has a
// lease knows all that was renewed before. Who watches counts the same time from when it
// saw a renewal, which is later; and takes nobody for gone before its own watch has
// brought a renewal that began after that. So of two nodes that do not reach each other,
// or that do not reach the API server, the one that loses its lease knows so before the
// other one does.
package lease

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	coordination "k8s.io/api/coordination/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// Label is on every Lease of flatnet's; its value says what the Lease is for.
const Label = "flatnet.io/lease"

// Seen is a Lease as it was seen last.
type Seen struct {
	Name, Purpose string
	Holder        string // empty where nobody holds it
	Annotations   map[string]string
	At            time.Time // when this renewal of it was seen, by this program's clock

	renewed int64 // what the holder wrote: it tells renewals apart, and nothing else
	version string
}

// Table is what is known of the Leases of a namespace.
type Table struct {
	contact *apiwatch.Contact
	now     func() time.Time
	wanted  loop.Latest[string] // label selectors

	mu     sync.Mutex
	watch  int             // the one that counts
	seen   map[string]Seen // nil before they are known
	tell   []loop.Signal
	listen []func(Seen)
}

// NewTable returns one that knows nothing yet.
func NewTable(log *slog.Logger) *Table {
	return &Table{contact: apiwatch.New("leases", log), now: time.Now, wanted: loop.NewLatest[string]()}
}

// Only has the table know of the Leases for a purpose only, or of all where it is empty: the
// API server does not send the others. Nothing is watched before it is called.
func (t *Table) Only(purpose string) {
	selector := Label
	if purpose != "" {
		selector += "=" + purpose
	}
	t.wanted.Put(selector)
}

// Changed returns a signal that is given when another Lease is there, or one is gone,
// or is another's, or says something else, or had run out; not where one is only renewed.
func (t *Table) Changed() loop.Signal {
	s := loop.NewSignal()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell = append(t.tell, s)
	return s
}

// listens has f called with every renewal that is seen.
func (t *Table) listens(f func(Seen)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listen = append(t.listen, f)
}

// Run watches until ctx ends.
func (t *Table) Run(ctx context.Context, client *apiwatch.Client, namespace string) {
	selector, end := "", func() {}
	for {
		select {
		case <-ctx.Done():
			end()
			return
		case fresh := <-t.wanted:
			if fresh == selector {
				continue
			}
			end()
			selector = fresh
			var watching context.Context
			watching, end = context.WithCancel(ctx)
			go t.contact.Follow(watching, client.Leases(namespace), selector, &coordination.Lease{}, t.store())
		}
	}
}

// store is that of a watch in the place of the one before, which may go on for a moment.
// What that has told counts until the new one has listed all.
func (t *Table) store() apiwatch.Store[*coordination.Lease] {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watch++
	watch := t.watch
	counts := func(f func(*coordination.Lease)) func(*coordination.Lease) {
		return func(l *coordination.Lease) {
			t.mu.Lock()
			defer t.mu.Unlock()
			if watch == t.watch {
				f(l)
			}
		}
	}
	return apiwatch.Store[*coordination.Lease]{Set: counts(t.set), Drop: counts(t.drop), Replaced: func(all []*coordination.Lease) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if watch == t.watch {
			t.replace(all)
		}
	}}
}

// Check says what is wrong with the watch, nil if nothing.
func (t *Table) Check() error { return t.contact.Check() }

// Known reports whether the Leases were listed.
func (t *Table) Known() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen != nil
}

// All returns those for a purpose.
func (t *Table) All(purpose string) (all []Seen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen {
		if s.Purpose == purpose {
			all = append(all, s)
		}
	}
	return all
}

// Get returns the Lease of a name.
func (t *Table) Get(name string) (s Seen, is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, is = t.seen[name]
	return s, is
}

// set notes a Lease as it is now. Whoever calls it has the lock, as for what follows.
func (t *Table) set(l *coordination.Lease) {
	if t.seen == nil {
		t.seen = map[string]Seen{}
	}
	if t.note(l) {
		t.give()
	}
}

// drop forgets a Lease.
func (t *Table) drop(l *coordination.Lease) {
	delete(t.seen, l.Name)
	t.gone(l.Name)
	t.give()
}

// replace notes all Leases, and forgets the others.
func (t *Table) replace(all []*coordination.Lease) {
	before := t.seen
	t.seen = make(map[string]Seen, len(all))
	for _, l := range all {
		if known, is := before[l.Name]; is {
			t.seen[l.Name] = known
		}
		t.note(l)
	}
	for name := range before {
		if _, is := t.seen[name]; !is {
			t.gone(name)
		}
	}
	t.give()
}

// gone says that a Lease is nobody's.
func (t *Table) gone(name string) {
	for _, f := range t.listen {
		f(Seen{Name: name})
	}
}

// note reports whether there is more to say than that the Lease was renewed.
func (t *Table) note(l *coordination.Lease) bool {
	s := Seen{Name: l.Name, Purpose: l.Labels[Label], Annotations: l.Annotations, At: t.now(), version: l.ResourceVersion}
	if l.Spec.HolderIdentity != nil {
		s.Holder = *l.Spec.HolderIdentity
	}
	if l.Spec.RenewTime != nil {
		s.renewed = l.Spec.RenewTime.UnixMicro()
	}
	before, known := t.seen[s.Name]
	if known && apiwatch.Older(s.version, before.version) {
		return false
	}
	if known && before.Holder == s.Holder && before.renewed == s.renewed {
		s.At = before.At // as it was before a list
	}
	t.seen[s.Name] = s
	for _, f := range t.listen {
		f(s)
	}
	revived := false // it had run out, and who counts on that has to know
	if d := l.Spec.LeaseDurationSeconds; d != nil {
		revived = known && s.At.Sub(before.At) >= time.Duration(*d)*time.Second
	}
	return !known || revived || before.Holder != s.Holder || !maps.Equal(before.Annotations, s.Annotations)
}

func (t *Table) give() {
	for _, s := range t.tell {
		s.Give()
	}
}
