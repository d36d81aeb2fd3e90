package netlab

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Buffered gives a socket room for what comes while its reader has to wait for a
// processor; it is the Control of a [net.ListenConfig] or a [net.Dialer]. Only
// root may have so much: for others it stays what everybody has.
func Buffered(_, _ string, c syscall.RawConn) error {
	const bytes = 4 << 20
	return c.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, bytes)
		}
	})
}
