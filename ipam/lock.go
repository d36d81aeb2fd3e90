package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// errReplaced means that somebody removed the directory or the lock file
// while this process was waiting for it.
var errReplaced = errors.New("the lock file was replaced")

// lock takes the lock that host-local takes, flock on a file in the record
// directory, and returns its descriptor. It asks again and again instead of
// waiting in the kernel, where neither a context nor a deadline would reach
// it; a lock is held for some 50 µs, so the first pauses are that short.
func (s *Store) lock(ctx context.Context, d *disk) (int, error) {
	fd, err := d.open(lockName, unix.O_RDONLY)
	if err == unix.ENOENT {
		if err := d.before("write", lockName); err != nil {
			return -1, err
		}
		fd, err = d.open(lockName, unix.O_RDONLY|unix.O_CREAT)
	}
	if err == unix.ENOENT {
		return -1, errReplaced // the directory itself is gone
	}
	if err != nil {
		return -1, fail("opening", s.path+"/"+lockName, err)
	}
	if err := s.await(ctx, fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// await waits for the lock of an open file.
func (s *Store) await(ctx context.Context, fd int) error {
	const longest = 8 * time.Millisecond
	pause := 50 * time.Microsecond
	var deadline time.Time
	var timer *time.Timer
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err == unix.EINTR {
			continue
		}
		if err != unix.EWOULDBLOCK {
			return fail("locking", s.path+"/"+lockName, err)
		}
		now := time.Now()
		if timer == nil {
			deadline = now.Add(s.timeout)
			timer = time.NewTimer(pause)
			defer timer.Stop()
		} else {
			if !now.Before(deadline) {
				return fmt.Errorf("waiting %s for %s/%s: %w", s.timeout, s.path, lockName, ErrLocked)
			}
			timer.Reset(pause/2 + rand.N(pause))
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s/%s: %w: %w", s.path, lockName, ErrLocked, context.Cause(ctx))
		}
		pause = min(pause*3/2, longest)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail("looking at", s.path+"/"+lockName, err)
	}
	if st.Nlink == 0 {
		return errReplaced
	}
	return nil
}
