package kernel

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settleTimeout bounds the wait for what the kernel does in the background. It
// takes microseconds on an idle machine.
const settleTimeout = 5 * time.Second

// await asks until the answer is that nothing is wrong, at growing intervals.
func await(wrong func() (string, error)) error {
	for begin, wait := time.Now(), 50*time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		found, err := wrong()
		if err != nil || found == "" {
			return err
		}
		if time.Since(begin) > settleTimeout {
			return fmt.Errorf("%s, still after %s", found, settleTimeout)
		}
		time.Sleep(wait)
	}
}

// awaitRunning waits until the interface transmits. Since Linux 6.8 the very
// question makes the kernel finish what it does in the background; before, it
// has to be repeated.
func (n *Netlink) awaitRunning(o Running) error {
	return await(func() (string, error) { return n.inspectRunning(o) })
}

func (n *Netlink) inspectRunning(o Running) (string, error) {
	return n.inspectLink(o.Side, o.Link, func(l *netlink.LinkAttrs) string {
		if l.OperState != netlink.OperUp {
			return fmt.Sprintf("is in state %s", l.OperState)
		}
		return ""
	})
}

func (n *Netlink) awaitReachable(o Reachable) error {
	return await(func() (string, error) { return n.inspectReachable(o) })
}

func (n *Netlink) inspectReachable(o Reachable) (string, error) {
	s, err := n.socket(o.Side)
	if err != nil {
		return "", err
	}
	route, err := s.lookup(o.Address)
	if err != nil && !isGone(err) && !isUnreachable(err) {
		return "", err
	}
	if err != nil || route.kind != unix.RTN_LOCAL {
		return fmt.Sprintf("packets to %s are not delivered in the %s's namespace", o.Address, o.Side), nil
	}
	return "", nil
}
