package kernel

import (
	"fmt"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// End is one end of a [Pair].
type End struct {
	Name string `json:"name"`
	MAC  MAC    `json:"mac"`
}

// Pair are two interfaces that are joined, one end in each namespace, both born there with name,
// MAC address, MTU and group in one message. A device that is moved or gets
// its MAC later costs an RCU grace period, and udev may change the MAC of one
// that was created without (MACAddressPolicy=persistent).
type Pair struct {
	Host, Pod End
	MTU       int // bytes
	Device    Device
}

func (p Pair) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d group %d type %s peer name %s address %s mtu %d netns pod",
		p.Host.Name, p.Host.MAC, p.MTU, Group, p.Device.command(), p.Pod.Name, p.Pod.MAC, p.MTU)
}

// Dependence implements [Object]: a pair stands alone.
func (Pair) Dependence() (Side, string) { return Host, "" }

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
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(p.Device.String()))
	peer := p.Device.describe(info.AddRtAttr(nl.IFLA_INFO_DATA, nil))
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
		if link, err := vishvananda.LinkDeserialize(nil, answer[0]); err == nil {
			n.indices[Host][p.Host.Name] = link.Attrs().Index
			n.indices[Pod][p.Pod.Name] = link.Attrs().ParentIndex
		}
	}
	return nil // indices that were not told are looked up when they are needed
}

func addEnd(add func(nl.NetlinkRequestData), e End, mtu int) {
	add(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Name)))
	add(nl.NewRtAttr(unix.IFLA_ADDRESS, e.MAC[:]))
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

func (n *Netlink) inspectPair(p Pair) (string, error) {
	var ends [2]*vishvananda.LinkAttrs
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
		if wrong := p.Device.wrong(l); wrong != "" {
			return fmt.Sprintf("%s interface %s %s", side, end.Name, wrong), nil
		}
		ends[side] = l.Attrs()
		n.indices[side][end.Name] = l.Attrs().Index
		if end.MAC != (MAC{}) && l.Attrs().HardwareAddr.String() != end.MAC.String() {
			return fmt.Sprintf("%s interface %s has MAC address %s instead of %s", side, end.Name, l.Attrs().HardwareAddr, end.MAC), nil
		}
	}
	if ends[Host].ParentIndex != ends[Pod].Index || ends[Pod].ParentIndex != ends[Host].Index {
		return fmt.Sprintf("host interface %s is not the other end of the pod's %s", p.Host.Name, p.Pod.Name), nil
	}
	return "", nil
}
