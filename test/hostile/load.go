package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// load is what keeps the machine busy until its context ends.
type load struct {
	running sync.WaitGroup
	errs    chan error
	// How much was done: a load that does nothing would prove nothing.
	synced, namespaces atomic.Int64
}

// begin starts a busy loop for each of so many processors, a writer and a maker of
// namespaces. What cannot be done here at all is an error at once.
func begin(ctx context.Context, processors int) (*load, error) {
	file, err := unnamed()
	if err != nil {
		return nil, err
	}
	if err := namespace(); err != nil {
		file.Close()
		return nil, err
	}
	// Each loop has a processor in mind, and the others are not to wait for one.
	runtime.GOMAXPROCS(processors + 2)
	l := &load{errs: make(chan error, 2)}
	for range processors {
		l.running.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	l.running.Go(func() {
		defer file.Close()
		l.errs <- repeat(ctx, &l.synced, func() error { return write(file) })
	})
	l.running.Go(func() { l.errs <- repeat(ctx, &l.namespaces, namespace) })
	return l, nil
}

// wait waits until all of it has ended, and says what of it could not be done.
func (l *load) wait() error {
	l.running.Wait()
	return errors.Join(<-l.errs, <-l.errs)
}

func repeat(ctx context.Context, done *atomic.Int64, do func() error) error {
	for ctx.Err() == nil {
		if err := do(); err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}

// unnamed opens a file that is gone with its last descriptor.
func unnamed() (*os.File, error) {
	file, err := os.CreateTemp("", "hostile-")
	if err != nil {
		return nil, fmt.Errorf("making a file to write to: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("taking the name of a file to write to: %w", err)
	}
	return file, nil
}

// write writes a megabyte and waits until the disk has it.
func write(file *os.File) error {
	if _, err := file.WriteAt(make([]byte, 1<<20), 0); err != nil {
		return fmt.Errorf("writing to the disk: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("syncing the disk: %w", err)
	}
	return nil
}

// namespace makes a network namespace that ends with the process that lives in it.
// Equivalent to: `unshare -n true`, and to `unshare -rn true` for others than root.
func namespace() error {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	// The signal of the parent's death is tied to the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("making a network namespace, which takes root or user namespaces: %w", err)
	}
	return nil
}
