package plugin

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// Whoever needs the lock alone gets it, though so many share it that there is no
// moment without one of them.
func TestWhoNeedsTheLockAloneIsNotStarved(t *testing.T) {
	j := &job{config: &netconf.Config{StateDirectory: t.TempDir()}}
	var got atomic.Bool
	var busy, sharing sync.WaitGroup
	for range 32 {
		busy.Add(1)
		sharing.Go(func() {
			entered := sync.OnceFunc(busy.Done)
			for !got.Load() {
				_, err := j.locked(t.Context(), unix.LOCK_SH, true, func() error {
					entered()
					time.Sleep(5 * time.Millisecond)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	busy.Wait()
	err := j.alone(func() bool { return true }, func() error { return nil })
	got.Store(true)
	if err != nil {
		t.Error(err)
	}
	sharing.Wait()
}

// Nobody else is in while one has the lock alone; those that share it are in at
// the same time.
func TestTheLockIsOneOnesOrMany(t *testing.T) {
	j := &job{config: &netconf.Config{StateDirectory: t.TempDir()}}
	var alone, sharing atomic.Int32
	var together, all sync.WaitGroup
	together.Add(2)
	for range 2 {
		all.Go(func() {
			_, err := j.locked(t.Context(), unix.LOCK_SH, true, func() error {
				together.Done()
				together.Wait() // until the other one is in as well
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range 16 {
		all.Go(func() {
			how, mine, others := unix.LOCK_SH, &sharing, &alone
			if i%4 == 0 {
				how, mine, others = unix.LOCK_EX, &alone, &sharing
			}
			for round := range 50 {
				_, err := j.locked(t.Context(), how, round%2 == 0, func() error {
					defer mine.Add(-1)
					if n := mine.Add(1); others.Load() > 0 || how == unix.LOCK_EX && n > 1 {
						return errors.New("somebody else is in")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
