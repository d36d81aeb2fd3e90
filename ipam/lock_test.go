package ipam

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"
)

func TestLocked(t *testing.T) {
	l := newLab(t)
	l.LockTimeout = 30 * time.Millisecond
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/29"}]]`)
	l.add(pool, "a")
	unlock := l.hostLocalLock()
	brief := l.open()
	l.LockTimeout = patience
	patient := l.open()
	s := brief
	before := l.snapshot()
	for name, verb := range map[string]func(ctx context.Context) error{
		"Allocate": func(ctx context.Context) error {
			_, err := s.Allocate(ctx, Request{Owner: Owner{"b", "eth0"}, Pool: pool})
			return err
		},
		"Release":      func(ctx context.Context) error { _, err := s.Release(ctx, Owner{"a", "eth0"}); return err },
		"Lookup":       func(ctx context.Context) error { _, err := s.Lookup(ctx, Owner{"a", "eth0"}); return err },
		"Reservations": func(ctx context.Context) error { _, err := s.Reservations(ctx); return err },
		"Collect": func(ctx context.Context) error {
			_, err := s.Collect(ctx, func(Reservation) bool { return true })
			return err
		},
		"HasFree": func(ctx context.Context) error { return s.HasFree(ctx, pool) },
		"Usage":   func(ctx context.Context) error { _, err := s.Usage(ctx, pool[0]); return err },
	} {
		start := time.Now()
		err := verb(t.Context())
		if !errors.Is(err, ErrLocked) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took < 30*time.Millisecond {
			t.Errorf("%s gave up after %s", name, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		s = patient
		if err := verb(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		s = brief
		cancel()
	}
	if l.snapshot() != before {
		t.Error("the disk changed")
	}

	// Whoever waits gets it when it is free.
	l.LockTimeout = patience
	got := make(chan string)
	go func() { got <- l.add(pool, "b") }()
	time.AfterFunc(20*time.Millisecond, unlock)
	l.want("add", <-got, "10.0.0.3")
}

// TestLockReplaced: the lock file is removed while somebody waits for it.
func TestLockReplaced(t *testing.T) {
	l := newLab(t)
	pool := poolOf(t, `[[{"subnet": "10.0.0.0/24"}]]`)
	l.add(pool, "a")
	unlock := l.hostLocalLock()
	var wg sync.WaitGroup
	for _, id := range []string{"b", "c", "d", "e"} {
		wg.Go(func() { l.add(pool, id) })
	}
	time.Sleep(5 * time.Millisecond) // either side of the removal will do
	if err := os.Remove(l.path("lock")); err != nil {
		t.Fatal(err)
	}
	unlock()
	wg.Wait()
	if n := len(l.records()); n != 5 {
		t.Errorf("%d records: %v", n, l.records())
	}
	l.lookup("a", "eth0")
	l.intact()
}

// TestPatience: who says nothing waits for as long as the documentation says.
func TestPatience(t *testing.T) {
	l := newLab(t)
	l.LockTimeout = 0
	if s := l.open(); s.timeout != DefaultLockTimeout {
		t.Errorf("waits for %s", s.timeout)
	}
}
