package loop

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestSignal(t *testing.T) {
	s := NewSignal()
	s.Give()
	s.Give() // does not wait
	<-s
	select {
	case <-s:
		t.Error("it was given twice")
	default:
	}
}

// Each of them gives it, and it is the caller's to give as well.
func TestAny(t *testing.T) {
	first, second := NewSignal(), NewSignal()
	s := Any(t.Context(), first, second)
	for _, one := range []Signal{first, second, s, first} {
		one.Give()
		<-s
	}
}

// Many put at the same time; the last value is there in the end, and nobody waits.
func TestLatest(t *testing.T) {
	l := NewLatest[int]()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 1000 {
				l.Put(i)
			}
		})
	}
	all.Wait()
	<-l
	l.Put(70)
	l.Put(71)
	if got := <-l; got != 71 {
		t.Errorf("got %d", got)
	}
}

func TestCalls(t *testing.T) {
	c := make(Calls)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { (<-c)() }()
	called := false
	if err := c.Do(ctx, func() { called = true }); err != nil || !called {
		t.Errorf("called %v, %v", called, err)
	}
	cancel()
	if err := c.Do(ctx, func() { t.Error("called where nobody listens") }); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody listens: %v", err)
	}
}
