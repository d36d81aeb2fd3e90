package ipam

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/filelock"
)

// errReplaced means that somebody removed the directory or the lock file
// while this process was waiting for it.
var errReplaced = errors.New("the lock file was replaced")

// errTimeout means that others had the lock for the store's whole patience.
var errTimeout = errors.New("the wait is over")

// lock takes the lock that host-local takes, flock on a file in the record
// directory, and returns its descriptor.
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
	patient, cancel := context.WithTimeoutCause(ctx, s.timeout, errTimeout)
	defer cancel()
	switch err := filelock.Flock(patient, fd, unix.LOCK_EX); {
	case err == nil:
	case errors.Is(err, errTimeout):
		return fmt.Errorf("waiting %s for %s/%s: %w", s.timeout, s.path, lockName, ErrLocked)
	case patient.Err() != nil:
		return fmt.Errorf("waiting for %s/%s: %w: %w", s.path, lockName, ErrLocked, context.Cause(ctx))
	default:
		return fail("locking", s.path+"/"+lockName, err)
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
