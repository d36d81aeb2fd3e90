// Package filelock waits for the locks of files as the kernel has them queue for
// them: whoever waits costs nothing until it is its turn, and that comes in the
// order of arrival. To ask again and again instead costs every waiting process
// some thousand instructions each time; where sixty of them wait on a busy node,
// that is what keeps the holder from going on.
package filelock

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Flock takes the lock of flock(2) for the open file fd, shared (unix.LOCK_SH) or
// alone (unix.LOCK_EX). It ends when the file is closed or the process ends. An
// error is the context's cause, or the kernel's: EBADF, ENOLCK.
func Flock(ctx context.Context, fd, how int) error {
	return wait(ctx, fd, func(fd int, block bool) error {
		if !block {
			return unix.Flock(fd, how|unix.LOCK_NB)
		}
		return unix.Flock(fd, how)
	})
}

// Held reports whether somebody has the lock of flock(2) for a file alone. Nobody
// has one that does not exist. To ask takes the lock for a moment, shared with
// others who ask.
func Held(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening lock %s: %w", path, err)
	}
	defer unix.Close(fd)
	err = again(fd, false, func(fd int, _ bool) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	if busy(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for lock %s: %w", path, err)
	}
	return false, nil
}

// Byte locks the first byte of the open file fd, which has to be writable, for
// that open file alone (an open file description lock, F_OFD_SETLKW of fcntl(2)),
// until Unlock or the end of the process. flock's lock and this one do not see
// each other. Errors are those of Flock.
func Byte(ctx context.Context, fd int) error {
	return wait(ctx, fd, byteLock)
}

// TryByte is Byte for who does not wait: held is false where another open file
// has the lock.
func TryByte(fd int) (held bool, err error) {
	err = again(fd, false, byteLock)
	if busy(err) {
		return false, nil
	}
	return err == nil, err
}

func byteLock(fd int, block bool) error {
	command := unix.F_OFD_SETLK
	if block {
		command = unix.F_OFD_SETLKW
	}
	return unix.FcntlFlock(uintptr(fd), command, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1})
}

// UnlockByte gives back what Byte took.
func UnlockByte(fd int) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Len: 1})
}

// wait takes a lock, in the kernel's queue if others have it.
func wait(ctx context.Context, fd int, take func(fd int, block bool) error) error {
	if err := again(fd, false, take); !busy(err) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A descriptor of its own for the same open file: the lock is that file's. Where
	// nobody waits any more, the caller closes its own, and the lock goes with this
	// one when its turn comes.
	waiting, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	taken := make(chan error, 1)
	go func() {
		err := again(waiting, true, take)
		unix.Close(waiting)
		taken <- err
	}()
	select {
	case err := <-taken:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// again repeats what a signal interrupts.
func again(fd int, block bool, take func(int, bool) error) error {
	for {
		if err := take(fd, block); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// busy says whether another one has a lock: fcntl's may say EACCES, too.
func busy(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }
