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
)

// What attachments share on a node: that it forwards, that it answers to the
// gateways, the nftables rules. The first attachment makes it, the last takes
// it along. A lock keeps the last DEL from removing what an ADD, which has
// written its record before, is about to rely on.

// share makes what the attachment needs to be there.
func (j *job) share(record attachment.Record) error {
	return j.locked(func() error {
		for _, object := range record.Wire.Shared() {
			if err := j.kernel.Make(object); err != nil {
				return cni.Wrap(cni.CodeKernel, err, "the kernel refused the change that the message begins with")
			}
		}
		return cni.Wrap(cni.CodeKernel, j.unguarded(need(record), j.rules.Add), "")
	})
}

// unshare removes what is shared, if the job's attachment was the last one.
func (j *job) unshare() error {
	// Without the lock's file nothing was ever shared.
	if _, err := os.Stat(j.lockPath()); err != nil || j.records.Others(j.key) {
		return nil
	}
	return j.locked(func() error {
		if j.records.Others(j.key) {
			return nil
		}
		return errors.Join(j.kernel.RemoveAnswered(), removed(j.rules.Clear()))
	})
}

func (j *job) lockPath() string { return filepath.Join(j.config.StateDirectory, "shared.lock") }

// locked calls f while no other process shares or unshares.
func (j *job) locked(f func() error) error {
	lock, err := os.OpenFile(j.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return cni.Wrap(cni.CodeState, fmt.Errorf("opening lock: %w", err), "look at the permissions and the free space of stateDir")
	}
	defer lock.Close()
	if err := acquire(lock); err != nil {
		return err
	}
	return f()
}

// lockTimeout bounds the wait for other processes, each of which needs a
// millisecond at most.
const lockTimeout = 20 * time.Second

func acquire(lock *os.File) error {
	for begin, wait := time.Now(), 200*time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return cni.Wrap(cni.CodeState, fmt.Errorf("locking %s: %w", lock.Name(), err), "")
		case time.Since(begin) > lockTimeout:
			return cni.Fail(cni.CodeTryAgain, fmt.Sprintf("another process has held %s for %s", lock.Name(), lockTimeout), "find it with fuser or lsof")
		}
		time.Sleep(wait)
	}
}
