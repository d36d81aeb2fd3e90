package kernel

import (
	"fmt"
	"net"
	"time"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Up is an interface's administrative state.
type Up struct {
	Side Side
	Link string
}

func (u Up) String() string { return fmt.Sprintf("%s link set %s up", u.Side.ip(), u.Link) }

// Dependence implements [Object].
func (u Up) Dependence() (Side, string) { return u.Side, u.Link }

func (n *Netlink) bringUp(o Up) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(unix.RTM_SETLINK, 0)
	message := linkMessage(index)
	message.Flags, message.Change = unix.IFF_UP, unix.IFF_UP
	r.AddData(message)
	return s.Acknowledge(r)
}

func (n *Netlink) inspectUp(o Up) (string, error) {
	return n.inspectLink(o.Side, o.Link, func(l *vishvananda.LinkAttrs) string {
		if l.Flags&net.FlagUp == 0 {
			return "is down"
		}
		return ""
	})
}

// Running is an interface that transmits. Bringing up the second end of a pair
// switches the first one's queue on, but in the background: until then the
// kernel drops what is sent through it. To make it is to wait for that.
type Running struct {
	Side Side
	Link string
}

func (r Running) String() string {
	return fmt.Sprintf("%s link show %s (until its state is UP)", r.Side.ip(), r.Link)
}

// Dependence implements [Object].
func (r Running) Dependence() (Side, string) { return r.Side, r.Link }

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
	return n.inspectLink(o.Side, o.Link, func(l *vishvananda.LinkAttrs) string {
		if l.OperState != vishvananda.OperUp {
			return fmt.Sprintf("is in state %s", l.OperState)
		}
		return ""
	})
}

// inspectLink says what is wrong with an interface, if only that it is missing.
func (n *Netlink) inspectLink(side Side, name string, wrong func(*vishvananda.LinkAttrs) string) (string, error) {
	s, err := n.socket(side)
	if err != nil {
		return "", err
	}
	l, err := s.link(name)
	if isGone(err) {
		return missing(side, name), nil
	}
	if err != nil {
		return "", err
	}
	if found := wrong(l); found != "" {
		return fmt.Sprintf("%s interface %s %s", side, name, found), nil
	}
	return "", nil
}

func missing(side Side, link string) string {
	return fmt.Sprintf("%s interface %s is missing", side, link)
}

// Link is what can be seen of an interface from outside.
type Link struct {
	Name  string
	Alias string
	Group int
	Kind  string // as the kernel calls it: "veth", "netkit", …
}

// FindLink looks an interface up by name; ok is false where there is none.
// Equivalent to: `ip link show dev NAME`.
func (n *Netlink) FindLink(side Side, name string) (found Link, ok bool, err error) {
	s, err := n.socket(side)
	if err != nil {
		return Link{}, false, err
	}
	l, err := s.getLink(name)
	if isGone(err) {
		return Link{}, false, nil
	}
	if err != nil {
		return Link{}, false, err
	}
	return Link{Name: name, Alias: l.Attrs().Alias, Group: int(l.Attrs().Group), Kind: l.Type()}, true, nil
}

// LinksOfGroup returns flatnet's interfaces on the host.
// Equivalent to: `ip link show group 70`.
func (n *Netlink) LinksOfGroup() ([]Link, error) {
	answer, err := n.sockets[Host].Dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	var links []Link
	for _, message := range answer {
		l, err := vishvananda.LinkDeserialize(nil, message)
		if err != nil {
			return nil, fmt.Errorf("listing interfaces: %w", err)
		}
		if a := l.Attrs(); a.Group == Group {
			links = append(links, Link{Name: a.Name, Alias: a.Alias, Group: Group, Kind: l.Type()})
		}
	}
	return links, nil
}

// DeleteLink removes an interface; it is no error where there is none.
// Equivalent to: `ip link del NAME`.
func (n *Netlink) DeleteLink(side Side, name string) error {
	s, err := n.socket(side)
	if err != nil {
		return err
	}
	if n.Step != nil {
		if err := n.Step("ip link del " + name); err != nil {
			return err
		}
	}
	if err := s.deleteLink(name); !isGone(err) {
		return err
	}
	return nil
}

// deleteLink removes an interface. Equivalent to: `ip link del NAME`.
func (s *socket) deleteLink(name string) error {
	r := s.Request(unix.RTM_DELLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return s.Acknowledge(r)
}

// link looks an interface up by name. Equivalent to: `ip link show dev NAME`.
func (s *socket) link(name string) (*vishvananda.LinkAttrs, error) {
	l, err := s.getLink(name)
	if err != nil {
		return nil, err
	}
	return l.Attrs(), nil
}

func (s *socket) getLink(name string) (vishvananda.Link, error) {
	r := s.Request(unix.RTM_GETLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	return s.oneLink(r)
}

// linkMessage begins a message about an interface, by its index.
func linkMessage(index int) *nl.IfInfomsg {
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	return message
}

// withoutStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters
// are most of what the kernel would answer.
const withoutStatistics = 1 << 3

func (s *socket) getLinkByIndex(index int) (vishvananda.Link, error) {
	r := s.Request(unix.RTM_GETLINK, 0)
	r.AddData(linkMessage(index))
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	return s.oneLink(r)
}

func (s *socket) oneLink(r *nl.NetlinkRequest) (vishvananda.Link, error) {
	answer, err := s.Execute(r)
	if err != nil {
		return nil, err
	}
	if len(answer) != 1 {
		return nil, fmt.Errorf("kernel answered with %d interfaces", len(answer))
	}
	return vishvananda.LinkDeserialize(nil, answer[0])
}

// linkName returns an interface's name for a message to people.
func (s *socket) linkName(index int) string {
	if l, err := s.getLinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}
