package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// makePair creates both ends in one RTM_NEWLINK. With NLM_F_ECHO, Linux 6.2 and
// later tell the new indices (kernel commit d88e136cab37), which saves looking them
// up by name. Earlier ones ignore the flag, so that only the acknowledgement, which
// all kernels send, says that the pair is there.
func (n *Netlink) makePair(p Pair) error {
	host, err := n.socket(Host)
	if err != nil {
		return err
	}
	if n.pod == nil {
		return fmt.Errorf("no namespace of the pod given")
	}
	r := host.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ECHO|unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	addEnd(r.AddData, p.Host, p.MTU)
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(Group)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	addEnd(func(d nl.NetlinkRequestData) { peer.AddChild(d) }, p.Pod, p.MTU)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.pod.FD())))
	r.AddData(info)
	n.forgetPair(p)
	answer, err := host.Execute(r)
	if err != nil {
		return err
	}
	if len(answer) > 0 {
		if link, err := netlink.LinkDeserialize(nil, answer[0]); err == nil {
			n.indices[Host][p.Host.Name] = link.Attrs().Index
			n.indices[Pod][p.Pod.Name] = link.Attrs().ParentIndex
		}
	}
	return nil // indices that were not told are looked up when they are needed
}

func addEnd(add func(nl.NetlinkRequestData), e End, mtu int) {
	add(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Name)))
	add(nl.NewRtAttr(unix.IFLA_ADDRESS, []byte(e.MAC)))
	add(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
}

func (n *Netlink) removePair(p Pair) error {
	host, err := n.socket(Host)
	if err != nil {
		return err
	}
	n.forgetPair(p)
	return host.deleteLink(p.Host.Name)
}

// forgetPair lets go of indices: another pair of these names has others.
func (n *Netlink) forgetPair(p Pair) {
	delete(n.indices[Host], p.Host.Name)
	delete(n.indices[Pod], p.Pod.Name)
}

// deleteLink removes an interface. Equivalent to: `ip link del NAME`.
func (s *socket) deleteLink(name string) error {
	r := s.Request(unix.RTM_DELLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return s.Acknowledge(r)
}

// link looks an interface up by name. Equivalent to: `ip link show dev NAME`.
func (s *socket) link(name string) (*netlink.LinkAttrs, error) {
	l, err := s.getLink(name)
	if err != nil {
		return nil, err
	}
	return l.Attrs(), nil
}

func (s *socket) getLink(name string) (netlink.Link, error) {
	r := s.Request(unix.RTM_GETLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	return s.oneLink(r)
}

// withoutStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters
// are most of what the kernel would answer.
const withoutStatistics = 1 << 3

func (s *socket) getLinkByIndex(index int) (netlink.Link, error) {
	r := s.Request(unix.RTM_GETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	r.AddData(message)
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	return s.oneLink(r)
}

func (s *socket) oneLink(r *nl.NetlinkRequest) (netlink.Link, error) {
	answer, err := s.Execute(r)
	if err != nil {
		return nil, err
	}
	if len(answer) != 1 {
		return nil, fmt.Errorf("kernel answered with %d interfaces", len(answer))
	}
	return netlink.LinkDeserialize(nil, answer[0])
}

func (n *Netlink) inspectPair(p Pair) (string, error) {
	var ends [2]*netlink.LinkAttrs
	for side, end := range map[Side]End{Host: p.Host, Pod: p.Pod} {
		s, err := n.socket(side)
		if err != nil {
			return "", err
		}
		l, err := s.getLink(end.Name)
		if isGone(err) {
			return missing(side, end.Name), nil
		}
		if err != nil {
			return "", err
		}
		if l.Type() != "veth" {
			return fmt.Sprintf("%s interface %s is of type %s, not veth", side, end.Name, l.Type()), nil
		}
		ends[side] = l.Attrs()
		n.indices[side][end.Name] = l.Attrs().Index
		if end.MAC != nil && l.Attrs().HardwareAddr.String() != end.MAC.String() {
			return fmt.Sprintf("%s interface %s has MAC address %s instead of %s", side, end.Name, l.Attrs().HardwareAddr, end.MAC), nil
		}
	}
	if ends[Host].ParentIndex != ends[Pod].Index || ends[Pod].ParentIndex != ends[Host].Index {
		return fmt.Sprintf("host interface %s is not the other end of the pod's %s", p.Host.Name, p.Pod.Name), nil
	}
	return "", nil
}

// Numbers of linux/ip.h and linux/if_link.h that the packages in use lack.
const (
	devconfForwarding = 1  // IPV4_DEVCONF_FORWARDING
	devconfRPFilter   = 8  // IPV4_DEVCONF_RP_FILTER
	devconfARPNotify  = 22 // IPV4_DEVCONF_ARP_NOTIFY
	inetConf          = 1  // IFLA_INET_CONF
	inet6AddrGenMode  = 8  // IFLA_INET6_ADDR_GEN_MODE
	addrGenModeNone   = 1  // IN6_ADDR_GEN_MODE_NONE

	attributeType = 0x3fff // NLA_TYPE_MASK: without the flags nested and byte order
)

func (n *Netlink) applySettings(o Settings) error {
	if o.WithoutIPv6 {
		// By file: there is no message for it.
		err := os.WriteFile(n.sysctl("net/ipv6/conf/"+o.Link+"/disable_ipv6"), []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return n.sendSettings(o, false)
	}
	if o.Announcing && o.IPv6 {
		if err := n.announceIPv6(o.Link); err != nil {
			return err
		}
	}
	err := n.sendSettings(o, true)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		// IPv6 is switched off on the machine (ipv6.disable=1): there is
		// no address generation to be stopped.
		return n.sendSettings(o, false)
	}
	return err
}

func (n *Netlink) announceIPv6(link string) error {
	return n.pod.Do(func() error {
		return os.WriteFile(n.sysctl("net/ipv6/conf/"+link+"/ndisc_notify"), []byte("1"), 0)
	})
}

func (n *Netlink) sendSettings(o Settings, ipv6 bool) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(unix.RTM_SETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	r.AddData(message)
	if o.Alias != "" {
		r.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(o.Alias)))
	}
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	if o.Guarded || o.Announcing {
		// By message and not by file below /proc/sys: no thread has to enter
		// a namespace for it, and nothing has to be opened.
		conf := families.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil)
		if o.Guarded {
			conf.AddRtAttr(devconfForwarding, nl.Uint32Attr(1))
			conf.AddRtAttr(devconfRPFilter, nl.Uint32Attr(1))
		}
		if o.Announcing {
			conf.AddRtAttr(devconfARPNotify, nl.Uint32Attr(1))
		}
	}
	if ipv6 {
		// Otherwise the kernel makes a link-local address of its own, with
		// duplicate address detection and router solicitations.
		families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(inet6AddrGenMode, nl.Uint8Attr(addrGenModeNone))
	}
	if o.Guarded || o.Announcing || ipv6 {
		r.AddData(families)
	}
	return s.Acknowledge(r)
}

func (n *Netlink) inspectSettings(o Settings) (string, error) {
	s, err := n.socket(o.Side)
	if err != nil {
		return "", err
	}
	r := s.Request(unix.RTM_GETLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(o.Link)))
	answer, err := s.Execute(r)
	if isGone(err) {
		return missing(o.Side, o.Link), nil
	}
	if err != nil {
		return "", err
	}
	l, err := netlink.LinkDeserialize(nil, answer[0])
	if err != nil {
		return "", err
	}
	if o.Alias != "" && l.Attrs().Alias != o.Alias {
		return fmt.Sprintf("%s interface %s has alias %q", o.Side, o.Link, l.Attrs().Alias), nil
	}
	if !o.Guarded {
		return "", nil
	}
	if l.Attrs().Group != Group {
		return fmt.Sprintf("%s interface %s is in group %d instead of %d", o.Side, o.Link, l.Attrs().Group, Group), nil
	}
	conf, err := devconf(answer[0])
	if err != nil {
		return "", err
	}
	if conf[devconfForwarding] != 1 {
		return fmt.Sprintf("net.ipv4.conf.%s.forwarding is %d", o.Link, conf[devconfForwarding]), nil
	}
	if conf[devconfRPFilter] != 1 {
		return fmt.Sprintf("net.ipv4.conf.%s.rp_filter is %d instead of 1 (strict)", o.Link, conf[devconfRPFilter]), nil
	}
	return "", nil
}

// devconf returns an interface's IPv4 configuration by number, out of a link
// message: IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF, which in this direction is an
// array of which number k is entry k-1.
func devconf(message []byte) (map[int]uint32, error) {
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, err
	}
	for _, want := range []uint16{unix.IFLA_AF_SPEC, unix.AF_INET, inetConf} {
		var inner []byte
		for _, a := range attributes {
			if a.Attr.Type&attributeType == want {
				inner = a.Value
			}
		}
		if want == inetConf {
			values := map[int]uint32{}
			for k := 0; k+4 <= len(inner); k += 4 {
				values[k/4+1] = binary.NativeEndian.Uint32(inner[k:])
			}
			return values, nil
		}
		if attributes, err = nl.ParseRouteAttr(inner); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (n *Netlink) bringUp(o Up) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(unix.RTM_SETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	message.Flags = unix.IFF_UP
	message.Change = unix.IFF_UP
	r.AddData(message)
	return s.Acknowledge(r)
}

func (n *Netlink) inspectUp(o Up) (string, error) {
	return n.inspectLink(o.Side, o.Link, func(l *netlink.LinkAttrs) string {
		if l.Flags&net.FlagUp == 0 {
			return "is down"
		}
		return ""
	})
}

// inspectLink says what is wrong with an interface, if only that it is missing.
func (n *Netlink) inspectLink(side Side, name string, wrong func(*netlink.LinkAttrs) string) (string, error) {
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
