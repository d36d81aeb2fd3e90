package kernel

import (
	"errors"
	"fmt"

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
	// ErrNoNamespace says that a path does not lead to a network namespace.
	ErrNoNamespace = errors.New("not a network namespace")
	// ErrOwnNamespace says that a path leads to the namespace that the
	// program itself is in.
	ErrOwnNamespace = errors.New("the plugin's own network namespace")
)

// OpenNamespace opens the network namespace at path. It fails with
// [ErrNoNamespace] where nothing is there or something else is, and with
// [ErrOwnNamespace] where it is the caller's own: a plugin that worked there
// would take the node's interface for the pod's.
func OpenNamespace(path string) (*Namespace, error) {
	// O_NONBLOCK: the path may be a FIFO, whose opening would wait for ever.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNamespace, err)
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
		return ErrNoNamespace
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
		return ErrOwnNamespace
	}
	return nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return unix.Close(n.fd) }

// Identity tells the namespace from all others.
func (n *Namespace) Identity() Identity { return n.id }
