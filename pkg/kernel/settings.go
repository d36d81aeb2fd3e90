package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// Settings are an interface's properties that cannot be given in the message
// that creates it. All of them travel in one message.
type Settings struct {
	Side Side
	Link string
	// Alias is a text of at most 255 bytes.
	Alias string
	// Guarded makes the interface forward IPv4 and drop what comes from a
	// source address that is not routed to it (strict reverse path filter).
	Guarded bool
	// Localnet has the interface take packets from and to 127.0.0.0/8 for what can
	// be routed: connections from the node's 127.0.0.1 to the other end.
	Localnet bool
	// WithoutIPv6 keeps the interface out of IPv6: no addresses, no multicast
	// route, which the kernel keeps in one long list for all interfaces.
	WithoutIPv6 bool
	// Announcing makes the interface tell its neighbours when its MAC address
	// changes, in IPv4 and, where IPv6 is set, in IPv6 as well.
	Announcing, IPv6 bool
}

func (s Settings) String() string {
	text := fmt.Sprintf("%s link set %s addrgenmode none", s.Side.ip(), s.Link)
	if s.Alias != "" {
		text += fmt.Sprintf(" alias %q", s.Alias)
	}
	if s.Guarded {
		text += fmt.Sprintf("; sysctl net.ipv4.conf.%s.forwarding=1 net.ipv4.conf.%s.rp_filter=1", s.Link, s.Link)
	}
	if s.Localnet {
		text += fmt.Sprintf("; sysctl net.ipv4.conf.%s.route_localnet=1", s.Link)
	}
	if s.WithoutIPv6 {
		text += fmt.Sprintf("; sysctl net.ipv6.conf.%s.disable_ipv6=1", s.Link)
	}
	if s.Announcing {
		text += fmt.Sprintf("; sysctl net.ipv4.conf.%s.arp_notify=1", s.Link)
		if s.IPv6 {
			text += fmt.Sprintf(" net.ipv6.conf.%s.ndisc_notify=1", s.Link)
		}
	}
	return text
}

// Dependence implements [Object].
func (s Settings) Dependence() (Side, string) { return s.Side, s.Link }

// Numbers of linux/ip.h and linux/if_link.h that the packages in use lack.
const (
	devconfForwarding = 1  // IPV4_DEVCONF_FORWARDING
	devconfRPFilter   = 8  // IPV4_DEVCONF_RP_FILTER
	devconfARPNotify  = 22 // IPV4_DEVCONF_ARP_NOTIFY
	devconfLocalnet   = 26 // IPV4_DEVCONF_ROUTE_LOCALNET
	inetConf          = 1  // IFLA_INET_CONF
	inet6AddrGenMode  = 8  // IFLA_INET6_ADDR_GEN_MODE
	addrGenModeNone   = 1  // IN6_ADDR_GEN_MODE_NONE
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
	if isAbsentFamily(err) {
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
	r.AddData(linkMessage(index))
	if o.Alias != "" {
		r.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(o.Alias)))
	}
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	if o.Guarded || o.Announcing || o.Localnet {
		// By message and not by file below /proc/sys: no thread has to enter
		// a namespace for it, and nothing has to be opened.
		conf := families.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil)
		if o.Guarded {
			conf.AddRtAttr(devconfForwarding, nl.Uint32Attr(1))
			conf.AddRtAttr(devconfRPFilter, nl.Uint32Attr(1))
		}
		if o.Localnet {
			conf.AddRtAttr(devconfLocalnet, nl.Uint32Attr(1))
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
	if o.Guarded || o.Announcing || o.Localnet || ipv6 {
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
	l, err := vishvananda.LinkDeserialize(nil, answer[0])
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
	conf := devconf(answer[0])
	if conf[devconfForwarding] != 1 {
		return fmt.Sprintf("net.ipv4.conf.%s.forwarding is %d", o.Link, conf[devconfForwarding]), nil
	}
	if conf[devconfRPFilter] != 1 {
		return fmt.Sprintf("net.ipv4.conf.%s.rp_filter is %d instead of 1 (strict)", o.Link, conf[devconfRPFilter]), nil
	}
	if o.Localnet && conf[devconfLocalnet] != 1 {
		return fmt.Sprintf("net.ipv4.conf.%s.route_localnet is %d", o.Link, conf[devconfLocalnet]), nil
	}
	return "", nil
}

// devconf returns an interface's IPv4 configuration by number, out of a link
// message: IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF, which in this direction is an
// array of which number k is entry k-1.
func devconf(message []byte) map[int]uint32 {
	inner := message[unix.SizeofIfInfomsg:]
	for _, want := range []uint16{unix.IFLA_AF_SPEC, unix.AF_INET, inetConf} {
		var of []byte
		for kind, value := range netlink.Attributes(inner) {
			if kind == want {
				of = value
			}
		}
		inner = of
	}
	values := map[int]uint32{}
	for k := 0; k+4 <= len(inner); k += 4 {
		values[k/4+1] = binary.NativeEndian.Uint32(inner[k:])
	}
	return values
}
