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
				held, err := j.locked(unix.LOCK_SH, time.Time{}, func() error {
					entered()
					time.Sleep(5 * time.Millisecond)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if !held {
					time.Sleep(100 * time.Microsecond)
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

// Nobody else is in while one has the lock alone, and those that share it are in
// at the same time.
func TestTheLockIsOneOnesOrMany(t *testing.T) {
	j := &job{config: &netconf.Config{StateDirectory: t.TempDir()}}
	var alone, sharing atomic.Int32
	both := make(chan struct{}, 2)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			err := j.patiently(func(deadline time.Time) (bool, error) {
				return j.locked(unix.LOCK_SH, deadline, func() error {
					both <- struct{}{}
					for len(both) < cap(both) { // until the other one is in as well
						time.Sleep(100 * time.Microsecond)
					}
					return nil
				})
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
			for range 50 {
				err := j.patiently(func(deadline time.Time) (bool, error) {
					return j.locked(how, deadline, func() error {
						defer mine.Add(-1)
						if n := mine.Add(1); others.Load() > 0 || how == unix.LOCK_EX && n > 1 {
							return errors.New("somebody else is in")
						}
						return nil
					})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
