package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/filelock"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// What attachments share on a node: that it forwards, that it answers to the
// gateways, the nftables rules, the tables of those that begin closed and of the node's
// ports. The first attachment makes it, the last takes it along. A lock keeps the last DEL from removing what an ADD, which has
// written its record before, is about to rely on: whoever joins what is there
// shares the lock with others, whoever makes or removes it has it alone. To join
// takes a millisecond on a quiet node, but where pods come and go by the dozen
// the kernel lets an nftables socket wait for the ends of removals by others
// (synchronize_rcu), and 64 that wait one after the other wait for too long.
// So many that share would never leave a moment to whoever needs it alone, and
// what all of them miss would never be made: who waits for it alone closes the
// way to it for others (see locked).

// share makes what the attachment needs to be there.
func (j *job) share(record attachment.Record) error {
	first := !j.records.Others(j.key) // who finds nothing to join
	return j.patiently(func(ctx context.Context) error {
		for try := 0; ; try++ {
			if joined := false; !first || try > 0 {
				_, err := j.locked(ctx, unix.LOCK_SH, true, func() (err error) {
					if joined, err = j.join(record); err != nil || !joined {
						return err
					}
					return j.shut(record)
				})
				if err != nil || joined {
					return err
				}
			}
			// Whoever is before may well be making what is missing: the first time
			// it is left to that one.
			if held, err := j.locked(ctx, unix.LOCK_EX, try > 0, func() error { return j.makeAll(record) }); err != nil || held {
				return err
			}
		}
	})
}

// makeAll makes what is shared, whatever is missing of it.
func (j *job) makeAll(record attachment.Record) error {
	if err := j.makeShared(record); err != nil {
		return err
	}
	if err := j.unguarded(need(record), j.rules.Add); err != nil {
		return cni.Wrap(cni.CodeKernel, err, "")
	}
	if !record.Ports.IsZero() {
		if err := j.ports.Make(); err != nil {
			return cni.Wrap(cni.CodeKernel, err, needNftables)
		}
	}
	return j.shut(record)
}

// join adds the attachment to what is shared, and reports whether all of that
// was there.
func (j *job) join(record attachment.Record) (joined bool, err error) {
	if err := j.makeShared(record); err != nil {
		return false, err
	}
	err = j.unguarded(need(record), func(n rules.Need) (err error) {
		joined, err = j.rules.Join(n)
		return err
	})
	if err == nil && joined && !record.Ports.IsZero() {
		joined, err = j.ports.Present()
	}
	return joined, cni.Wrap(cni.CodeKernel, err, "")
}

// makeShared makes what can be made any number of times at once.
func (j *job) makeShared(record attachment.Record) error {
	for _, object := range record.Wire.Shared() {
		if err := j.kernel.Make(object); err != nil {
			return cni.Wrap(cni.CodeKernel, err, "the kernel refused the change that the message begins with")
		}
	}
	return nil
}

// unshare removes what is shared, if the attachment was the last one.
func (j *job) unshare(record attachment.Record) error {
	// Without the lock's file nothing was ever shared.
	if _, err := os.Stat(j.lockPath()); err != nil {
		return nil
	}
	last := func() bool { return !j.records.Others(j.key) }
	return j.alone(last, func() error {
		err := errors.Join(j.kernel.RemoveAnswered(), removed(j.rules.Clear()), removed(j.ports.Clear()))
		if j.config.Policies != "" || len(record.Closed) > 0 {
			err = errors.Join(err, removed(j.closed.Clear()))
		}
		return err
	})
}

// alone calls f while no other process has the lock, unless it is no longer
// wanted by then.
func (j *job) alone(wanted func() bool, f func() error) error {
	if !wanted() {
		return nil
	}
	return j.patiently(func(ctx context.Context) error {
		_, err := j.locked(ctx, unix.LOCK_EX, true, func() error {
			if !wanted() {
				return nil
			}
			return f()
		})
		return err
	})
}

func (j *job) lockPath() string { return filepath.Join(j.config.StateDirectory, "shared.lock") }

// locked calls f while the lock of the file is held (flock). On the way to it
// there is room for one, who has the file's first byte locked: who shares the lock
// is through at once, and who wants it alone stays there until those who are in
// have left, and nobody follows them. Without patience nobody is waited for on
// that way: held is false. All of it ends with the process.
func (j *job) locked(ctx context.Context, how int, patience bool, f func() error) (held bool, err error) {
	lock, err := os.OpenFile(j.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, cni.Wrap(cni.CodeState, fmt.Errorf("opening lock: %w", err), "look at the permissions and the free space of stateDir")
	}
	defer lock.Close()
	fd := int(lock.Fd())
	if patience {
		err = filelock.Byte(ctx, fd)
	} else if held, err = filelock.TryByte(fd); err == nil && !held {
		return false, nil
	}
	if err == nil {
		err = filelock.Flock(ctx, fd, how)
	}
	if err == nil {
		err = filelock.UnlockByte(fd)
	}
	switch {
	case err == nil:
		return true, f()
	case errors.Is(err, errTooLong):
		return false, cni.Fail(cni.CodeTryAgain, fmt.Sprintf("other processes have held %s for %s", lock.Name(), lockTimeout), "find them with fuser or lsof")
	default:
		return false, cni.Wrap(cni.CodeState, fmt.Errorf("locking %s: %w", lock.Name(), err), "")
	}
}

// lockTimeout bounds the wait for other processes, each of which needs a
// few milliseconds at most.
const lockTimeout = 20 * time.Second

// errTooLong means that other processes had the lock for lockTimeout.
var errTooLong = errors.New("others have the lock")

// patiently calls f with a context that ends once other processes have had the
// lock for too long.
func (j *job) patiently(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), lockTimeout, errTooLong)
	defer cancel()
	return f(ctx)
}
