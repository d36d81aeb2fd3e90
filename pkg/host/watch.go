package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// settle is how long Watch lets changes come together: setting forwarding of all
// interfaces makes a notification for each.
const settle = 20 * time.Millisecond

// Watch calls changed, on its own goroutine, once when it listens and then after
// every change of forwarding or rp_filter of an interface, of all or of the
// default, in the network namespace of the calling thread. Several changes
// within 20 ms make one call; notifications that the kernel had to throw away
// count as a change. Interfaces of pods (group 70) are not looked at: each is
// set up by the plugin, and nothing here depends on them.
//
// What changed writes itself is notified as well. That ends when it finds
// nothing more to write.
//
// Watch returns the context's error soon after the context's end, and an error
// of its own where there is nothing to watch with.
// Equivalent to: `ip monitor netconf`.
func Watch(ctx context.Context, changed func()) error {
	w, err := openWatcher()
	if err != nil {
		return fmt.Errorf("watching sysctls: %w", err)
	}
	defer w.close()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		w.interrupt()
	})
	defer func() {
		// The descriptors must outlive the one who writes to them.
		if !stop() {
			<-woken
		}
	}()
	if ctx.Err() == nil {
		changed()
	}
	for {
		if err := w.await(ctx, -1); err != nil {
			return err
		}
		if !w.drain() {
			continue
		}
		deadline := time.Now().Add(settle)
		for left := settle; left > 0; left = time.Until(deadline) {
			if err := w.await(ctx, left); err != nil {
				return err
			}
			w.drain()
		}
		changed()
	}
}

// watcher is a subscription. Its descriptors are waited for with poll(2), and
// belong to the namespace that they were opened in, whatever thread waits.
type watcher struct {
	socket int
	wake   int // an event descriptor: the end of a context is no file
	links  *netlink.Handle
	buffer []byte
}

func openWatcher() (_ *watcher, err error) {
	w := &watcher{socket: -1, wake: -1, buffer: make([]byte, 16<<10)}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	w.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	if err := unix.Bind(w.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("binding netlink socket: %w", err)
	}
	for _, group := range []int{unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF} {
		if err := unix.SetsockoptInt(w.socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return nil, fmt.Errorf("subscribing to netlink group %d: %w", group, err)
		}
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("opening event descriptor: %w", err)
	}
	if w.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	return w, nil
}

func (w *watcher) close() {
	for _, fd := range []int{w.socket, w.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if w.links != nil {
		w.links.Close()
	}
}

// interrupt ends every await, this one and later ones.
func (w *watcher) interrupt() {
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 1})
}

// await waits until the socket has something to read, the time is over (a
// negative one never is) or the context has ended.
func (w *watcher) await(ctx context.Context, timeout time.Duration) error {
	milliseconds := -1
	if timeout >= 0 {
		milliseconds = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	fds := []unix.PollFd{{Fd: int32(w.socket), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, milliseconds)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("waiting for changes of sysctls: %w", err)
	}
	return nil
}

// drain reads all that the socket has, and reports whether a setting changed.
func (w *watcher) drain() (changed bool) {
	for {
		n, _, err := unix.Recvfrom(w.socket, w.buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			// The kernel had more to say than the socket holds.
			changed = true
		case err != nil:
			return changed
		default:
			for _, index := range changedSettings(w.buffer[:n]) {
				changed = changed || w.concerns(index)
			}
		}
	}
}

// concerns reports whether a setting of an interface is one that the host needs.
func (w *watcher) concerns(index int) bool {
	if index <= 0 {
		return true // all, or the default
	}
	link, err := w.links.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false // it has gone again
	}
	// An answer that is not to be had is no reason to overlook a change.
	return err != nil || link.Attrs().Group != kernel.Group
}
