// Command floor is a CNI plugin stub that makes the kernel objects of one
// flatnet attachment from constants, and removes them: no configuration, no
// allocator, no state, no check. It is what the benchmark compares flatnet
// with: a plugin in Go that makes these objects does not get much faster.
package main

import (
	"fmt"
	"hash/fnv"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	mark = 70 // interface group and route protocol, as flatnet's
	mtu  = 1500
)

var (
	subnet  = host(10, 70, 0, 1)
	gateway = net.IPv4(169, 254, 1, 1)
	hostMAC = net.HardwareAddr{0x02, 0x70, 0, 0, 0, 1}
	podMAC  = net.HardwareAddr{0x02, 0x70, 0, 0, 0, 2}
)

func main() {
	a := attachmentOf(os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME"))
	var err error
	switch os.Getenv("CNI_COMMAND") {
	case "ADD":
		err = a.add(os.Getenv("CNI_NETNS"))
	case "DEL":
		err = netlink.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: a.outside}})
	default:
		err = fmt.Errorf("CNI_COMMAND is %q", os.Getenv("CNI_COMMAND"))
	}
	if err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":999,"msg":%q}`, err)
		os.Exit(1)
	}
}

// attachment is all that the program knows of a pod, and DEL can find again.
type attachment struct {
	id, inside, outside string
	address             *net.IPNet
}

// attachmentOf makes name and address from a checksum. That two pods get the same
// address, now and then, matters to nobody here.
func attachmentOf(id, inside string) attachment {
	hash := fnv.New64a()
	hash.Write([]byte(id + "/" + inside))
	sum := hash.Sum64()
	return attachment{id, inside, fmt.Sprintf("veth%011x", sum>>20), host(10, 70, byte(sum>>8)|1, byte(sum))}
}

func (a attachment) add(path string) error {
	space, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	pod, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = a.outside
	attributes.MTU = mtu
	attributes.Group = mark
	attributes.HardwareAddr = hostMAC
	attributes.Flags = net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs: attributes, PeerName: a.inside, PeerMTU: mtu,
		PeerHardwareAddr: podMAC, PeerNamespace: netlink.NsFd(space),
	}
	if err := node.LinkAdd(veth); err != nil {
		return err
	}
	// The kernel takes no alias with the message that creates a link.
	if err := node.LinkSetAlias(veth, a.id+"/"+a.inside); err != nil {
		return err
	}
	if err := a.furnishPod(pod); err != nil {
		return err
	}
	if err := a.furnishNode(node, veth.Index); err != nil {
		return err
	}
	_, err = fmt.Printf(`{"cniVersion":"1.0.0","interfaces":[{"name":%q,"mac":%q},{"name":%q,"mac":%q,"sandbox":%q}],`+
		`"ips":[{"interface":1,"address":%q,"gateway":%q}],"routes":[{"dst":"0.0.0.0/0"}]}`,
		a.outside, hostMAC, a.inside, podMAC, path, a.address, subnet.IP)
	return err
}

func (a attachment) furnishPod(pod *netlink.Handle) error {
	link, err := pod.LinkByName(a.inside)
	if err != nil {
		return err
	}
	if err := pod.LinkSetUp(link); err != nil {
		return err
	}
	if err := pod.AddrAdd(link, &netlink.Addr{IPNet: a.address}); err != nil {
		return err
	}
	if err := pod.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: hostMAC,
	}); err != nil {
		return err
	}
	return pod.RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index, Gw: gateway, Flags: int(netlink.FLAG_ONLINK), Protocol: mark,
	})
}

func (a attachment) furnishNode(node *netlink.Handle, index int) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+a.outside+"/rp_filter", []byte("1"), 0); err != nil {
		return err
	}
	if err := node.NeighSet(&netlink.Neigh{
		LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.address.IP, HardwareAddr: podMAC,
	}); err != nil {
		return err
	}
	if err := node.RouteReplace(&netlink.Route{
		LinkIndex: index, Dst: a.address, Scope: netlink.SCOPE_LINK, Protocol: mark,
	}); err != nil {
		return err
	}
	return node.RouteReplace(&netlink.Route{
		LinkIndex: index, Dst: subnet, Scope: netlink.SCOPE_HOST,
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Protocol: mark,
	})
}

// host is the prefix of one address.
func host(a, b, c, d byte) *net.IPNet {
	return &net.IPNet{IP: net.IPv4(a, b, c, d).To4(), Mask: net.CIDRMask(32, 32)}
}
