package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Listener is a socket for what the kernel tells without being asked.
type Listener struct{ file *os.File }

// Listen opens a listener to some multicast groups in the network namespace of the
// calling thread. What is told from then on waits in a buffer of so many bytes, or,
// without the right to that, of as many as are allowed.
func Listen(protocol, bufferBytes int, groups ...int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferBytes)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding netlink socket: %w", err)
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("subscribing to netlink group %d: %w", group, err)
		}
	}
	return &Listener{os.NewFile(uintptr(fd), "netlink")}, nil
}

// Ask sends a request that asks for an acknowledgement, and returns what the kernel
// says to it. It is for what comes before [Listener.Run].
func (l *Listener) Ask(request []byte) error {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	buffer := make([]byte, 4<<10)
	failed := raw.Control(func(fd uintptr) {
		if err = unix.Sendto(int(fd), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return
		}
		// The answer is there when the sending ends; others' messages may be before it.
		for answered := false; err == nil && !answered; {
			var n int
			if n, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT); err == nil {
				err = each(buffer[:n], func(h *unix.NlMsghdr, payload []byte) (err error) {
					if h.Type == unix.NLMSG_ERROR {
						answered = true
						_, err = Status(h, payload)
					}
					return err
				})
			}
		}
	})
	return errors.Join(failed, err)
}

// Close ends the listening.
func (l *Listener) Close() { l.file.Close() }

// Run calls tell for every message, and lost when some were lost, for there were too
// many, until ctx ends; then it returns nil and the listener is closed. What tell is
// given is valid until it returns. Messages of other processes are left out.
func (l *Listener) Run(ctx context.Context, tell func(h *unix.NlMsghdr, payload []byte), lost func()) error {
	defer l.Close()
	defer context.AfterFunc(ctx, l.Close)()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("waiting for netlink notifications: %w", err)
	}
	buffer := make([]byte, 64<<10)
	for {
		var n int
		var from unix.Sockaddr
		var receiveErr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, receiveErr = unix.Recvfrom(int(fd), buffer, 0)
			return !errors.Is(receiveErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("waiting for netlink notifications: %w", err)
		case errors.Is(receiveErr, unix.ENOBUFS):
			lost()
			continue
		case errors.Is(receiveErr, unix.EINTR):
			continue
		case receiveErr != nil:
			return fmt.Errorf("receiving netlink notifications: %w", receiveErr)
		}
		if isKernel(from) {
			// What cannot be read is no message.
			_ = each(buffer[:n], func(h *unix.NlMsghdr, payload []byte) error {
				tell(h, payload)
				return nil
			})
		}
	}
}
