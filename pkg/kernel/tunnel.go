package kernel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Tunnel is the VXLAN device: the overlay's interface on this node. It learns
// nothing: who is where stands in [Forward] entries.
type Tunnel struct {
	Name string
	VNI  int        // VXLAN network identifier, 1 to 16777215
	Port int        // UDP destination port, 1 to 65535
	From netip.Addr // the node's address on the underlay; its family is the tunnel's
	MAC  MAC
	MTU  int // bytes
}

func (t Tunnel) String() string {
	// The outer UDP checksum is left out over IPv4: the inner packets have
	// their own, and kernels before 5.8 and some network cards compute a wrong
	// one for packets that were translated. Over IPv6 it is required (RFC 6935
	// allows to leave it out, but then the other end has to agree).
	checksum := "noudpcsum"
	if t.From.Is6() {
		checksum = "udpcsum"
	}
	return fmt.Sprintf("ip link add %s address %s mtu %d type vxlan id %d local %s dstport %d nolearning %s; ip link set %s up addrgenmode none",
		t.Name, t.MAC, t.MTU, t.VNI, t.From, t.Port, checksum, t.Name)
}

// Dependence implements [Object]: a tunnel stands alone.
func (Tunnel) Dependence() (Side, string) { return Host, "" }

// applyTunnel makes, adapts or removes the VXLAN device. What can be changed
// while it is in use is; otherwise the device is made anew, and what was on it
// is gone.
func (f *Fabric) applyTunnel(v Verb, want Tunnel) error {
	if v == Delete {
		found, err := f.socket.getLink(want.Name)
		if err != nil {
			return err
		}
		if found.Type() != "vxlan" {
			return nil // somebody else's
		}
		return f.socket.deleteLink(want.Name)
	}
	found, err := f.socket.getLink(want.Name)
	switch {
	case isGone(err):
		return f.createTunnel(want)
	case err != nil:
		return err
	}
	device, isVxlan := found.(*vishvananda.Vxlan)
	if !isVxlan {
		return nameTaken(found)
	}
	have := tunnelOf(device)
	fits := have.VNI == want.VNI && have.Port == want.Port && plainVxlan(device)
	if fits && have.From != want.From {
		// Refused where the family is another one.
		fits = have.From.BitLen() == want.From.BitLen() && f.moveTunnel(want, device.Attrs().Index) == nil
	}
	if !fits {
		if err := f.socket.deleteLink(want.Name); err != nil && !isGone(err) {
			return err
		}
		return f.createTunnel(want)
	}
	return f.adaptTunnel(want, device.Attrs().Index)
}

// moveTunnel gives the tunnel another address on the underlay. Equivalent to:
// `ip link set NAME type vxlan local ADDRESS`.
func (f *Fabric) moveTunnel(t Tunnel, index int) error {
	r := f.socket.Request(unix.RTM_NEWLINK, 0)
	r.AddData(linkMessage(index))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	addLocal(info.AddRtAttr(nl.IFLA_INFO_DATA, nil), t.From)
	r.AddData(info)
	return f.socket.Acknowledge(r)
}

func addLocal(data *nl.RtAttr, local netip.Addr) {
	kind := nl.IFLA_VXLAN_LOCAL
	if local.Is6() {
		kind = nl.IFLA_VXLAN_LOCAL6
	}
	data.AddRtAttr(kind, local.AsSlice())
}

// createTunnel makes the device with its MAC address, so that nobody else gives
// it one: udev leaves alone what came with an address (MACAddressPolicy).
func (f *Fabric) createTunnel(t Tunnel) error {
	r := f.socket.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	addEnd(r.AddData, End{Name: t.Name, MAC: t.MAC}, t.MTU)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(uint32(t.VNI)))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, uint16(t.Port)))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(0))
	addLocal(data, t.From)
	if t.From.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, nl.Uint8Attr(0))
	} else {
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, nl.Uint8Attr(0))
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, nl.Uint8Attr(0))
	}
	r.AddData(info)
	if err := f.socket.Acknowledge(r); err != nil {
		return f.explainNumber(t, err)
	}
	if t.From.Is6() && !offloadIsSafe(kernelRelease()) {
		if err := switchOffTxChecksum(t.Name); err != nil {
			return err
		}
	}
	l, err := f.socket.link(t.Name)
	if err != nil {
		return err
	}
	if f.Clsact {
		// Without it the tunnel is as good.
		_ = AddClsact(f.socket.Socket, l.Index)
	}
	return f.adaptTunnel(t, l.Index)
}

// adaptTunnel sets what can be set at any time, and brings the device up. It has
// no link-local addresses: nothing on it is ever asked for or announced. That
// has to be said before it is up, in a message of its own.
func (f *Fabric) adaptTunnel(t Tunnel, index int) error {
	quiet := f.linkMessage(index, 0)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(inet6AddrGenMode, nl.Uint8Attr(addrGenModeNone))
	quiet.AddData(families)
	if err := f.socket.Acknowledge(quiet); err != nil && !isAbsentFamily(err) {
		return err
	}
	up := f.linkMessage(index, unix.IFF_UP)
	up.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, t.MAC[:]))
	up.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(t.MTU))))
	return f.explainPort(t, f.socket.Acknowledge(up))
}

func (f *Fabric) linkMessage(index int, flags uint32) *nl.NetlinkRequest {
	r := f.socket.Request(unix.RTM_SETLINK, 0)
	message := linkMessage(index)
	message.Flags, message.Change = flags, flags
	r.AddData(message)
	return r
}

// findTunnel returns the device as it is, or nil where there is none.
func (f *Fabric) findTunnel() (*Tunnel, int, error) {
	l, err := f.socket.getLink(f.tunnel)
	if isGone(err) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("looking at %s: %w", f.tunnel, err)
	}
	device, isVxlan := l.(*vishvananda.Vxlan)
	if !isVxlan {
		return nil, 0, nil
	}
	t := tunnelOf(device)
	return &t, device.Attrs().Index, nil
}

// tunnelOf describes a device. One that is down or differs in what [Tunnel] does
// not name is described as nothing that could be wanted.
func tunnelOf(device *vishvananda.Vxlan) Tunnel {
	t := Tunnel{
		Name: device.Name, VNI: device.VxlanId, Port: device.Port,
		MTU: device.MTU,
	}
	copy(t.MAC[:], device.HardwareAddr)
	if from, ok := netip.AddrFromSlice(device.SrcAddr); ok {
		t.From = from.Unmap()
	}
	if device.Flags&net.FlagUp == 0 {
		t.MTU = 0
	}
	if !plainVxlan(device) {
		t.VNI = 0
	}
	return t
}

func plainVxlan(device *vishvananda.Vxlan) bool {
	return !device.Learning && !device.FlowBased && !device.GBP
}

// tunnelAddress is an address of the tunnel, as it was found.
func tunnelAddress(link string, found foundAddress) Address {
	return Address{Link: link, Prefix: found.prefix, Deprecated: found.flags&unix.IFA_F_DEPRECATED != 0}
}

// listTunnel lists what is on the tunnel: addresses, neighbours, forwarding.
func (f *Fabric) listTunnel(index int) ([]Object, error) {
	var objects []Object
	addresses, err := f.socket.addresses(unix.AF_UNSPEC, index)
	if err != nil {
		return nil, fmt.Errorf("listing addresses of %s: %w", f.tunnel, err)
	}
	for _, a := range addresses {
		if !a.prefix.Addr().IsLinkLocalUnicast() {
			objects = append(objects, tunnelAddress(f.tunnel, a))
		}
	}
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		answer, err := f.socket.Dump(unix.RTM_GETNEIGH, neighboursOf(fam, index)...)
		if isAbsentFamily(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing neighbours of %s: %w", f.tunnel, err)
		}
		for _, message := range answer {
			if object := readNeighbour(message, f.tunnel, index); object != nil {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}

// neighboursOf asks for one interface's entries. A forwarding database is named
// in the header, a neighbour table beside it.
func neighboursOf(fam uint8, index int) []nl.NetlinkRequestData {
	if fam == unix.AF_BRIDGE {
		return []nl.NetlinkRequestData{&vishvananda.Ndmsg{Family: fam, Index: uint32(index)}}
	}
	return []nl.NetlinkRequestData{&vishvananda.Ndmsg{Family: fam}, nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index)))}
}

// readNeighbour returns the object of a neighbour message, or nil where it is
// not one on the tunnel that anybody made.
func readNeighbour(message []byte, name string, index int) Object {
	n, err := parseNeighbour(message)
	if err != nil || n.link != index || n.mac == (MAC{}) && n.family == unix.AF_BRIDGE {
		return nil
	}
	if n.family == unix.AF_BRIDGE {
		return Forward{Link: name, MAC: n.mac, To: n.address}
	}
	if n.state&unix.NUD_PERMANENT == 0 || n.address.IsMulticast() {
		return nil // the kernel's own
	}
	return Neighbour{Link: name, Address: n.address, MAC: n.mac}
}
