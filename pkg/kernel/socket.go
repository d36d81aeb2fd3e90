package kernel

import (
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// socket asks about links, addresses, routes and neighbours of one namespace.
type socket struct{ *netlink.Socket }

// openSocket opens a socket in a namespace, or in the caller's own where the
// namespace is nil. The thread is back in its own namespace on return.
func openSocket(in *namespace.Namespace, bufferBytes int) (s *socket, err error) {
	open := func() error {
		opened, err := netlink.Open(unix.NETLINK_ROUTE, bufferBytes)
		s = &socket{opened}
		return err
	}
	if in != nil {
		err = in.Visit(open)
	} else {
		err = open()
	}
	return s, err
}

// usualBytes is enough for what an attachment asks, and the less there is to
// clear in a process of three milliseconds.
const usualBytes = 16 << 10

// ErrUnanswered says that the kernel has not answered in time: what was asked
// for may be done or not.
var ErrUnanswered = netlink.ErrUnanswered
