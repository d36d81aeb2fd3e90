package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// What attachments share on a node: that it forwards, that it answers to the
// gateways, the nftables rules. The first attachment makes it, the last takes
// it along. A lock keeps the last DEL from removing what an ADD, which has
// written its record before, is about to rely on: whoever joins what is there
// shares the lock with others, whoever makes or removes it has it alone. To join
// takes a millisecond on a quiet node, but where pods come and go by the dozen
// the kernel lets an nftables socket wait for the ends of removals by others
// (synchronize_rcu), and 64 that wait one after the other wait for too long.
// So many that share would never leave a moment to whoever needs it alone, and
// what all of them miss would never be made: who waits for it alone closes the
// way to it for others (see entered).

// share makes what the attachment needs to be there.
func (j *job) share(record attachment.Record) error {
	first := !j.records.Others(j.key) // who finds nothing to join
	return j.patiently(func(deadline time.Time) (done bool, err error) {
		if !first {
			held, err := j.locked(unix.LOCK_SH, deadline, func() (err error) {
				done, err = j.join(record)
				return err
			})
			if err != nil || done || !held {
				return done, err
			}
		}
		// Where another one wants it alone, it may well be making what is missing.
		first = false
		return j.locked(unix.LOCK_EX, deadline, func() error { return j.makeAll(record) })
	})
}

// makeAll makes what is shared, whatever is missing of it.
func (j *job) makeAll(record attachment.Record) error {
	if err := j.makeShared(record); err != nil {
		return err
	}
	return cni.Wrap(cni.CodeKernel, j.unguarded(need(record), j.rules.Add), "")
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

// unshare removes what is shared, if the job's attachment was the last one.
func (j *job) unshare() error {
	// Without the lock's file nothing was ever shared.
	if _, err := os.Stat(j.lockPath()); err != nil {
		return nil
	}
	last := func() bool { return !j.records.Others(j.key) }
	return j.alone(last, func() error {
		return errors.Join(j.kernel.RemoveAnswered(), removed(j.rules.Clear()))
	})
}

// alone calls f while no other process has the lock, unless it is no longer
// wanted by then.
func (j *job) alone(wanted func() bool, f func() error) error {
	return j.patiently(func(deadline time.Time) (done bool, err error) {
		if !wanted() {
			return true, nil
		}
		return j.locked(unix.LOCK_EX, deadline, func() error {
			if !wanted() {
				return nil
			}
			return f()
		})
	})
}

func (j *job) lockPath() string { return filepath.Join(j.config.StateDirectory, "shared.lock") }

// locked calls f while the lock is held, and reports whether it was to be had.
// A lock that nobody else shares is waited for until the deadline.
func (j *job) locked(how int, deadline time.Time, f func() error) (held bool, err error) {
	lock, err := os.OpenFile(j.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, cni.Wrap(cni.CodeState, fmt.Errorf("opening lock: %w", err), "look at the permissions and the free space of stateDir")
	}
	defer lock.Close()
	if held, err = entered(lock, how, deadline); err != nil {
		return false, cni.Wrap(cni.CodeState, fmt.Errorf("locking %s: %w", lock.Name(), err), "")
	}
	if !held {
		return false, nil
	}
	return true, f()
}

// entered takes the lock if it is to be had, on a way on which there is room for
// one: the first byte of the file is locked from the look at the lock until it is
// held. Who shares the lock looks once and is through or turned away; who wants it
// alone stays on the way until those who are in have left, and nobody follows
// them. Both locks end with the process.
func entered(lock *os.File, how int, deadline time.Time) (bool, error) {
	if open, err := way(lock, unix.F_WRLCK); err != nil || !open {
		return false, err
	}
	held, err := flock(lock, how)
	if how == unix.LOCK_EX {
		for ; err == nil && !held && time.Now().Before(deadline); held, err = flock(lock, how) {
			time.Sleep(200 * time.Microsecond)
		}
	}
	_, closeErr := way(lock, unix.F_UNLCK)
	return held && err == nil && closeErr == nil, errors.Join(err, closeErr)
}

// way locks the file's first byte or unlocks it, for this open file (an open file
// description lock: flock's does not see it), and reports whether it could.
func way(lock *os.File, kind int16) (bool, error) {
	return unlessBusy(func() error {
		return unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Len: 1})
	})
}

func flock(lock *os.File, how int) (bool, error) {
	return unlessBusy(func() error { return unix.Flock(int(lock.Fd()), how|unix.LOCK_NB) })
}

// unlessBusy reports whether a lock was to be had.
func unlessBusy(take func() error) (bool, error) {
	for {
		switch err := take(); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// lockTimeout bounds the wait for other processes, each of which needs a
// few milliseconds at most.
const lockTimeout = 20 * time.Second

// patiently calls try until it is done or fails, and gives up once other processes
// have had the lock for too long.
func (j *job) patiently(try func(deadline time.Time) (done bool, err error)) error {
	deadline := time.Now().Add(lockTimeout)
	for wait := 200 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		if done, err := try(deadline); err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return cni.Fail(cni.CodeTryAgain, fmt.Sprintf("other processes have held %s for %s", j.lockPath(), lockTimeout), "find them with fuser or lsof")
		}
		time.Sleep(wait)
	}
}
