package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDirectory is where network namespaces are bound, as `ip netns` does.
const namespaceDirectory = "/run/netns"

// The main goroutine keeps the main thread to itself: a thread that [onThread]
// has used is thrown away, which the main thread cannot be, and /proc/self
// shows the main thread's namespace.
func init() { runtime.LockOSThread() }

// Namespace is a network namespace that is bound to a path.
type Namespace struct {
	Name   string
	Path   string // what CNI_NETNS is set to
	handle netns.NsHandle
	once   sync.Once
	links  *netlink.Handle
}

// NewNamespace makes a network namespace with lo up, bound to /run/netns/name.
// Equivalent to: `ip netns add NAME; ip -n NAME link set lo up`.
func NewNamespace(name string) (*Namespace, error) {
	if err := os.MkdirAll(namespaceDirectory, 0o755); err != nil {
		return nil, fmt.Errorf("making %s: %w", namespaceDirectory, err)
	}
	path := filepath.Join(namespaceDirectory, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("making mount point of namespace %s: %w", name, err)
	}
	file.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(threadNamespace(), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("making network namespace %s: %w", name, err)
	}
	n, err := Open(name, path)
	if err != nil {
		return nil, errors.Join(err, unbind(path))
	}
	if err := n.Up("lo"); err != nil {
		return nil, errors.Join(err, n.Delete())
	}
	return n, nil
}

// Current returns the network namespace that the caller runs in.
func Current() (*Namespace, error) {
	return Open("self", threadNamespace())
}

// Open returns the network namespace at a path, which may be that of a process
// (/proc/PID/ns/net). The name is for messages.
func Open(name, path string) (*Namespace, error) {
	handle, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace %s: %w", name, err)
	}
	return &Namespace{Name: name, Path: path, handle: handle}, nil
}

// Close lets go of the namespace without removing its path.
func (n *Namespace) Close() {
	if n.links != nil {
		n.links.Close()
	}
	n.handle.Close()
}

// Delete removes the namespace's path; the kernel destroys the namespace when
// no process is left in it. Equivalent to: `ip netns del NAME`.
func (n *Namespace) Delete() error {
	n.Close()
	return unbind(n.Path)
}

func unbind(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	return os.Remove(path)
}

// Do calls f on a thread that is in the namespace. The thread is thrown away
// afterwards, so f may do with it what it likes; goroutines that f starts are
// not in the namespace.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("entering namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// Run starts cmd in the namespace and waits until it has ended.
// Equivalent to: `ip netns exec NAME CMD`.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	return n.Do(cmd.Run)
}

// Output runs a program in the namespace and returns what it printed on
// standard output; the error holds what it printed on standard error.
func (n *Namespace) Output(name string, arg ...string) (string, error) {
	var out, errOut strings.Builder
	cmd := exec.Command(name, arg...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := n.Run(cmd); err != nil {
		return out.String(), fmt.Errorf("%s in namespace %s: %w: %s", cmd, n.Name, err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Netlink returns a netlink handle in the namespace; it lives until Close.
func (n *Namespace) Netlink() *netlink.Handle {
	n.once.Do(func() {
		handle, err := netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
		if err != nil {
			panic(fmt.Sprintf("netlab: opening netlink in namespace %s: %v", n.Name, err))
		}
		n.links = handle
	})
	return n.links
}

// FD returns the namespace's file descriptor, valid until Close.
func (n *Namespace) FD() int { return int(n.handle) }

// Up brings an interface up. Equivalent to: `ip -n NAME link set LINK up`.
func (n *Namespace) Up(link string) error {
	l, err := n.Netlink().LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding %s in namespace %s: %w", link, n.Name, err)
	}
	if err := n.Netlink().LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing up %s in namespace %s: %w", link, n.Name, err)
	}
	return nil
}

// Test runs a part of t in the namespace. f may end it as any test may: with
// t.Fatal, or with t.Skip.
func (n *Namespace) Test(t testing.TB, f func()) {
	t.Helper()
	err := n.Do(func() error { f(); return nil })
	if err != nil && t.Skipped() {
		t.SkipNow()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Sysctl reads a value below /proc/sys, for example "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(key string) (string, error) {
	var value string
	err := n.Do(func() error {
		raw, err := os.ReadFile(filepath.Join("/proc/sys", key))
		value = strings.TrimSpace(string(raw))
		return err
	})
	return value, err
}

// SetSysctl writes a value below /proc/sys.
func (n *Namespace) SetSysctl(key, value string) error {
	return n.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
}

// threadNamespace is the path of the calling thread's network namespace.
func threadNamespace() string {
	return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
}

// onThread calls f on a thread of its own, which ends with f: the goroutine
// stays locked to it, so the runtime destroys it and no other goroutine ever
// runs in a namespace that f entered.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// Stays where f ends the goroutine, as a failing test does.
		err := errors.New("ended before its time")
		defer func() { result <- err }()
		err = f()
	}()
	return <-result
}

// runLocked runs cmd from a thread that lives until cmd has ended, since the
// death signal is tied to the thread that forked, and passes signals on to it.
func runLocked(cmd *exec.Cmd, signals <-chan os.Signal) error {
	return onThread(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			for s := range signals {
				cmd.Process.Signal(s) // it may have ended
			}
		}()
		return cmd.Wait()
	})
}
