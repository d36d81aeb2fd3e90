package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HasRoute reports whether the node would send a packet of its own to an address
// somewhere: whether there is a route to it that is not unreachable, prohibit or
// blackhole. Equivalent to: `ip route get 10.96.0.1`.
func HasRoute(to netip.Addr) (bool, error) {
	_, err := netlink.RouteGet(to.AsSlice())
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, none) {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("looking up the route to %s: %w", to, err)
	}
	return true, nil
}
