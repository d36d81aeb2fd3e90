package kernel

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// settleTimeout bounds the wait for what the kernel does in the background. It
// takes microseconds on an idle machine. On a crowded one it waits for the lock
// that every change of interfaces and addresses waits for, and those have no bound
// at all; a runtime gives a pod's sandbox minutes (kubelet: four).
const settleTimeout = time.Minute

// awaitRunning waits until the interface transmits. Since Linux 6.8 the very
// question makes the kernel finish what it does in the background; before, it
// has to be repeated, at growing intervals.
func (n *Netlink) awaitRunning(o Running) error {
	for begin, wait := time.Now(), 50*time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		found, err := n.inspectRunning(o)
		if err != nil || found == "" {
			return err
		}
		if time.Since(begin) > settleTimeout {
			return fmt.Errorf("%s, still after %s", found, settleTimeout)
		}
		time.Sleep(wait)
	}
}

func (n *Netlink) inspectRunning(o Running) (string, error) {
	return n.inspectLink(o.Side, o.Link, func(l *netlink.LinkAttrs) string {
		if l.OperState != netlink.OperUp {
			return fmt.Sprintf("is in state %s", l.OperState)
		}
		return ""
	})
}
