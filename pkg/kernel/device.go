package kernel

import (
	"fmt"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// Device is what a [Pair] consists of, by the kernel's name of it; "" is [Veth].
//
// A netkit pair is made in its L2 mode, which has MAC addresses and asks for those of
// neighbours, and not in L3, which is its default. Everything else of a pod's wire is then
// the same for both: the MAC address that the runtime may ask for, that plugins behind this
// one may change and that CHECK compares, link-local addresses made of it, the neighbours
// that are known from the start, what tcpdump and DHCP see, and what the fast path writes
// into a packet. In L3 packets have an Ethernet header as well, with addresses that are 0;
// nobody has to be asked for them, as nobody is asked here.
//
// The rest of netkit's settings are left as the kernel has them, which is what veth does:
// what is sent arrives where no program says otherwise (policy forward at both ends), and
// mark and priority do not cross into another namespace (scrub). The pod has the end that is
// not the primary one: nothing in the pod can change the pair's policy or programs.
type Device string

// The devices.
const (
	Veth   Device = "veth"
	Netkit Device = "netkit"
)

func (d Device) String() string {
	if d == "" {
		return string(Veth)
	}
	return string(d)
}

// command is the type of it for `ip link add`, with its settings.
func (d Device) command() string {
	if d == Netkit {
		return "netkit mode l2"
	}
	return d.String()
}

// describe adds the settings of a pair to its data, and returns where the other end is
// described. Both kernels' headers call it number 1, after which its own begin.
func (d Device) describe(data *nl.RtAttr) (peer *nl.RtAttr) {
	if d == Netkit {
		data.AddRtAttr(nl.IFLA_NETKIT_MODE, nl.Uint32Attr(uint32(vishvananda.NETKIT_MODE_L2)))
		return data.AddRtAttr(nl.IFLA_NETKIT_PEER_INFO, nil)
	}
	return data.AddRtAttr(nl.VETH_INFO_PEER, nil)
}

// wrong says how an end differs from one of this kind; "" where it does not.
func (d Device) wrong(end vishvananda.Link) string {
	if end.Type() != d.String() {
		return fmt.Sprintf("is of type %s, not %s", end.Type(), d)
	}
	netkit, is := end.(*vishvananda.Netkit)
	if !is {
		return ""
	}
	if netkit.Mode != vishvananda.NETKIT_MODE_L2 {
		return "is of netkit's mode l3, not l2"
	}
	for _, p := range []vishvananda.NetkitPolicy{netkit.Policy, netkit.PeerPolicy} {
		if p != vishvananda.NETKIT_POLICY_FORWARD {
			return "drops what no program lets pass (netkit's policy blackhole, not forward)"
		}
	}
	return ""
}
