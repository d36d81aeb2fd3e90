package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Clsact is a place for filters of traffic control at both sides of an interface. To make
// it, or take it away, the kernel stops an interface that is up for a moment, and loses what
// is sent meanwhile: so it is made while the interface is down, and ends with it.
type Clsact struct {
	Side Side
	Link string
}

func (c Clsact) String() string { return c.Side.tc() + " qdisc add dev " + c.Link + " clsact" }

// Dependence implements [Object].
func (c Clsact) Dependence() (Side, string) { return c.Side, c.Link }

// The qdisc has no queue, and is beside the one that has.
const (
	clsactKind   = "clsact"
	clsactHandle = 0xffff0000
	clsactParent = 0xfffffff1 // TC_H_CLSACT
)

// makeClsact leaves an interface as it is where the kernel has no such qdisc: nobody's
// packets depend on it.
func (n *Netlink) makeClsact(o Clsact) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	err = AddClsact(s.Socket, index)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// AddClsact makes the qdisc at an interface, which may have it already.
// Equivalent to: `tc qdisc add dev LINK clsact`.
func AddClsact(s *netlink.Socket, index int) error {
	r := tcRequest(&socket{s}, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, clsactParent, clsactHandle)
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(clsactKind)))
	if err := s.Acknowledge(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making qdisc clsact: %w", err)
	}
	return nil
}

// RemoveClsact takes the qdisc away, with all filters; it is no error where there is none.
// Equivalent to: `tc qdisc del dev LINK clsact`.
func RemoveClsact(s *netlink.Socket, index int) error {
	r := tcRequest(&socket{s}, unix.RTM_DELQDISC, 0, index, clsactParent, clsactHandle)
	if err := s.Acknowledge(r); err != nil && !isGone(err) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("removing qdisc clsact: %w", err)
	}
	return nil
}

// IngressQueue returns the kind of the qdisc that is in clsact's place, "" for none: clsact,
// or ingress, which has the one side only. All are listed, since who asks for one has all
// told who listen to traffic control, as if it had changed (seen on Linux 5.10).
// Equivalent to: `tc qdisc show dev LINK ingress`.
func IngressQueue(s *netlink.Socket, index int) (kind string, err error) {
	answer, err := s.Dump(unix.RTM_GETQDISC, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index)})
	if err != nil {
		return "", fmt.Errorf("listing qdiscs: %w", err)
	}
	for _, message := range answer {
		if len(message) < nl.SizeofTcMsg {
			continue
		}
		if m := nl.DeserializeTcMsg(message); int(m.Ifindex) == index && m.Parent == clsactParent {
			kind, _ = tcContent(message)
			return kind, nil
		}
	}
	return "", nil
}
