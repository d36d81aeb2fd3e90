package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Reachable is an IPv6 address that packets to it are delivered to. The kernel
// makes an address's local route in the background, even where it skips duplicate
// address detection, and on a crowded machine seconds later; until then it takes
// packets to the address for somebody else's. So it gets a local route at once,
// which stays beside the kernel's own (of metric 0) and ends with the interface.
type Reachable struct {
	Side    Side
	Link    string
	Address netip.Addr
}

func (r Reachable) String() string {
	return fmt.Sprintf("%s route add local %s dev %s proto %d table local", r.Side.ip(), r.Address, r.Link, Protocol)
}

// Dependence implements [Object].
func (r Reachable) Dependence() (Side, string) { return r.Side, r.Link }

// Answered is an address outside of all interfaces that the node answers to. All
// attachments with the same gateway share it, so Remove leaves it alone; see
// [Netlink.RemoveAnswered].
type Answered struct {
	Address netip.Addr
	// Lasting says that it belongs to the fabric and not to attachments. It has a
	// metric of its own, by which both can be there, and come and go, without the
	// other; and beside what the kernel makes for an address of an interface.
	Lasting bool
}

// lastingMetric comes after that of attachments: whoever deletes a route and does not
// say which gets the first.
const lastingMetric = 1 << 30

func (a Answered) String() string {
	text := fmt.Sprintf("ip route add local %s dev lo proto %d", a.Address, Protocol)
	if a.Lasting {
		text += fmt.Sprintf(" metric %d", lastingMetric)
	}
	return text + " table local"
}

// in fills a request in; index is that of lo.
func (a Answered) in(r *nl.NetlinkRequest, index int) *nl.NetlinkRequest {
	localMessage(r, a.Address, index)
	if a.Lasting {
		r.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(lastingMetric)))
	}
	return r
}

// lasting returns the address that a route has the node answer to for the fabric.
func (f foundRoute) lasting() (a Answered, is bool) {
	return Answered{Address: f.Destination.Addr(), Lasting: true},
		f.protocol == Protocol && f.kind == unix.RTN_LOCAL && f.Table == unix.RT_TABLE_LOCAL && f.Metric == lastingMetric && f.Destination.IsSingleIP()
}

// Dependence implements [Object]: an answered address stands alone.
func (Answered) Dependence() (Side, string) { return Host, "" }

// localRoute adds or deletes a route by which a namespace takes packets to an
// address as its own.
func (n *Netlink) localRoute(side Side, link string, address netip.Addr, message, flags int) error {
	s, index, err := n.on(side, link)
	if err != nil {
		return err
	}
	r := s.Request(message, flags)
	localMessage(r, address, index)
	return s.Acknowledge(r)
}

func localMessage(r *nl.NetlinkRequest, address netip.Addr, index int) {
	header := nl.NewRtMsg()
	header.Family = uint8(family(address))
	header.Dst_len = uint8(address.BitLen())
	header.Table = unix.RT_TABLE_LOCAL
	header.Type = unix.RTN_LOCAL
	header.Protocol = Protocol
	if address.Is4() {
		header.Scope = unix.RT_SCOPE_HOST
	}
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.RTA_DST, address.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
}

func (n *Netlink) makeReachable(o Reachable) error {
	err := n.localRoute(o.Side, o.Link, o.Address, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if errors.Is(err, ErrExists) {
		return nil // by another interface that has the address: it is delivered
	}
	return err
}

func (n *Netlink) inspectReachable(o Reachable) (string, error) {
	s, err := n.socket(o.Side)
	if err != nil {
		return "", err
	}
	local, err := s.isLocal(o.Address)
	if err == nil && !local {
		return fmt.Sprintf("packets to %s are not delivered in the %s's namespace", o.Address, o.Side), nil
	}
	return "", err
}

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

// inspectAnswered asks for the best route: that of the fabric is the last.
func (n *Netlink) inspectAnswered(o Answered) (string, error) {
	route, err := n.sockets[Host].lookup(o.Address)
	if err != nil && !isGone(err) && !isUnreachable(err) {
		return "", err
	}
	// The answer names no table.
	lasting := route.protocol == Protocol && route.Metric == lastingMetric
	if err != nil || route.kind != unix.RTN_LOCAL || lasting {
		return fmt.Sprintf("the host does not answer to %s", o.Address), nil
	}
	return "", nil
}

// RemoveAnswered removes all [Answered] addresses of attachments from the node.
// Equivalent to: `ip route flush table local proto 70; ip -6 route flush table local proto 70`,
// without those of the fabric.
func (n *Netlink) RemoveAnswered() error {
	var errs []error
	for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := &nl.RtMsg{}
		header.Family = f
		header.Table = unix.RT_TABLE_LOCAL
		answer, err := n.sockets[Host].Dump(unix.RTM_GETROUTE, header)
		if err != nil && !isAbsentFamily(err) {
			errs = append(errs, fmt.Errorf("listing local routes: %w", err))
			continue
		}
		for _, message := range answer {
			route := parseRoute(message)
			if route.protocol != Protocol || route.kind != unix.RTN_LOCAL || route.Table != unix.RT_TABLE_LOCAL {
				continue
			}
			if _, lasting := route.lasting(); lasting {
				continue
			}
			address := route.Destination.Addr()
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
