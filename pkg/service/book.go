package service

import (
	"context"
	"maps"
	"sync"
)

// Book has the Services as they are, for those who want all of them and not what has
// changed. It may be used from any goroutine.
type Book struct {
	mu       sync.Mutex
	services map[Name]Service
	known    bool
	changed  func()
}

// NewBook returns one that knows of none.
func NewBook() *Book { return &Book{services: map[Name]Service{}, changed: func() {}} }

// Changed has f called, on any goroutine, when anything was noted.
func (b *Book) Changed(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = f
}

// Note takes note of a batch. The first has everything.
func (b *Book) Note(batch Batch) {
	b.mu.Lock()
	for _, name := range batch.Deleted {
		delete(b.services, name)
	}
	for _, s := range batch.Set {
		b.services[s.Name] = s
	}
	b.known = true
	changed := b.changed
	b.mu.Unlock()
	changed()
}

// All returns the Services, and whether they are known.
func (b *Book) All() (all map[Name]Service, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.services), b.known
}

// Follow notes what a source tells until ctx ends.
func (b *Book) Follow(ctx context.Context, source Source) {
	go source.Run(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-source.Changed():
			if source.Known() {
				b.Note(source.Take())
			}
		}
	}
}
