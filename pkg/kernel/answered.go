package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answer makes a local route on lo. A route on each wire would end with its wire
// and need no care, but the kernel keeps routes to one prefix in a list, which
// every insertion and look-up walks: a quarter of a millisecond at 2,000 pods.
func (n *Netlink) answer(o Answered) error {
	add := func() error {
		return n.localRoute(Host, "lo", o.Address, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}
	err := add()
	// IPv6 has no routes by an interface that is down. A node's lo is up unless
	// somebody made a namespace a node and forgot it; nothing else wants it down.
	if errors.Is(err, unix.ENETDOWN) {
		if err := n.bringUp(Up{Host, "lo"}); err != nil {
			return err
		}
		err = add()
	}
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}

func (n *Netlink) inspectAnswered(o Answered) (string, error) {
	local, err := n.sockets[Host].isLocal(o.Address)
	if err == nil && !local {
		return fmt.Sprintf("the host does not answer to %s", o.Address), nil
	}
	return "", err
}

// RemoveAnswered removes all [Answered] addresses of the node.
// Equivalent to: `ip route flush table local proto 70; ip -6 route flush table local proto 70`.
func (n *Netlink) RemoveAnswered() error {
	var errs []error
	for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := &nl.RtMsg{}
		header.Family = f
		header.Table = unix.RT_TABLE_LOCAL
		answer, err := n.sockets[Host].Dump(unix.RTM_GETROUTE, header)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("listing local routes: %w", err))
			continue
		}
		for _, message := range answer {
			route, err := parseRoute(message)
			if err != nil || route.protocol != Protocol || route.kind != unix.RTN_LOCAL || route.Table != unix.RT_TABLE_LOCAL {
				continue
			}
			address := route.destination.Addr()
			if n.Step != nil {
				if err := n.Step("ip route del local " + address.String()); err != nil {
					return err
				}
			}
			if err := n.localRoute(Host, "lo", address, unix.RTM_DELROUTE, 0); err != nil && !isGone(err) {
				errs = append(errs, fmt.Errorf("ip route del local %s: %w", address, err))
			}
		}
	}
	return errors.Join(errs...)
}
