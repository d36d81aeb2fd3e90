// Package namespace knows network namespaces: which one a path leads to, how to work
// in one, and whether one still exists.
package namespace

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Identity tells network namespaces apart, whatever paths lead to them. It is
// unique among the namespaces that exist at one time.
type Identity struct {
	Device, Inode uint64
}

// Namespace is an open network namespace.
type Namespace struct {
	Path string
	fd   int
	id   Identity
}

// nsGetType is NS_GET_NSTYPE of linux/nsfs.h: which kind of namespace a file
// descriptor stands for.
const nsGetType = 0xb703

var (
	// ErrNone says that a path does not lead to a network namespace.
	ErrNone = errors.New("not a network namespace")
	// ErrOwn says that a path leads to the namespace that the
	// program itself is in.
	ErrOwn = errors.New("the plugin's own network namespace")
)

// Open opens the network namespace at path. It fails with
// [ErrNone] where nothing is there or something else is, and with
// [ErrOwn] where it is the caller's own: a plugin that worked there
// would take the node's interface for the pod's.
func Open(path string) (*Namespace, error) {
	// O_NONBLOCK: the path may be a FIFO, whose opening would wait for ever.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	n := &Namespace{Path: path, fd: fd}
	if err := n.verify(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Namespace) verify() error {
	kind, err := unix.IoctlRetInt(n.fd, nsGetType)
	if err != nil || kind != unix.CLONE_NEWNET {
		return ErrNone
	}
	var stat unix.Stat_t
	if err := unix.Fstat(n.fd, &stat); err != nil {
		return fmt.Errorf("identifying network namespace: %w", err)
	}
	n.id = Identity{Device: stat.Dev, Inode: stat.Ino}
	// The thread's namespace, not the process's: they differ in a program
	// that calls from a thread which it moved into another namespace.
	if err := unix.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		return fmt.Errorf("identifying own network namespace: %w", err)
	}
	if own := (Identity{Device: stat.Dev, Inode: stat.Ino}); n.id == own {
		return ErrOwn
	}
	return nil
}

// FD is the file descriptor that stands for the namespace, until it is closed.
func (n *Namespace) FD() int { return n.fd }

// Visit calls f on the calling thread while it is in the namespace. Should the
// thread not find its way back, it is never used again: the goroutine keeps it.
func (n *Namespace) Visit(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening own network namespace: %w", err)
	}
	defer home.Close()
	if err := n.enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	result := f()
	if err := netns.Set(home); err != nil {
		return fmt.Errorf("returning from namespace %s: %w", n.Path, err)
	}
	runtime.UnlockOSThread()
	return result
}

// Do calls f on a thread of its own in the namespace, which ends with it.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := n.enter(); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (n *Namespace) enter() error {
	if err := netns.Set(netns.NsHandle(n.fd)); err != nil {
		return fmt.Errorf("entering namespace %s: %w", n.Path, err)
	}
	return nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return unix.Close(n.fd) }

// Identity tells the namespace from all others.
func (n *Namespace) Identity() Identity { return n.id }
