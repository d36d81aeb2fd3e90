package fastpath

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// overlay is what the programs have to know of the overlay to wrap and unwrap packets
// themselves; the zero value is that its device does it. It does so where the underlay is
// IPv6, whose packets' outer checksum is to be computed.
type overlay struct {
	index            int // of its interface
	mac              kernel.MAC
	vni              uint32
	address          netip.Addr // of this node in its packets
	firstPort, ports uint16     // those that the packets come from, and how many
}

// overlayOf finds what an overlay is like.
func (k *Keeper) overlayOf(where Where, all []interfaceLink) overlay {
	if where.Tunnel == "" || !where.Outer.Is4() {
		return overlay{}
	}
	for _, l := range all {
		if l.name == where.Tunnel {
			o := overlay{index: l.index, mac: l.mac, vni: k.VNI, address: where.Outer}
			o.firstPort, o.ports = k.localPorts()
			return o
		}
	}
	return overlay{}
}

// localPorts are those that the kernel has packets of VXLAN come from. Where they cannot be
// read they are those that it has when it starts: any do.
func (k *Keeper) localPorts() (first, ports uint16) {
	var last uint16
	raw, err := os.ReadFile(filepath.Join(cmp.Or(k.Sysctls, "/proc/sys"), "net/ipv4/ip_local_port_range"))
	if err == nil {
		_, err = fmt.Sscan(string(raw), &first, &last)
	}
	if err != nil || last < first {
		first, last = 32768, 60999
	}
	return first, last - first
}

// useOverlay tells the programs of an overlay. What was decided with another one is decided
// anew.
func (k *Keeper) useOverlay(o overlay) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o == k.overlay {
		return nil
	}
	k.overlay = o
	if k.setting == nil {
		return nil
	}
	k.next()
	if err := k.write(k.deadline); err != nil {
		return fmt.Errorf("telling the programs of the overlay: %w", err)
	}
	return nil
}

// tell is the overlay as the programs have it, which is as packets do.
func (o overlay) tell(s *programSettings) {
	if o.index == 0 {
		return
	}
	s.Overlay = uint32(o.index)
	for i := range s.Mac {
		s.Mac[i] = binary.NativeEndian.Uint16(o.mac[2*i:])
	}
	const reserved = 8 // bits behind the number
	s.Vni = binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, o.vni<<reserved))
	s.Address = binary.NativeEndian.Uint32(o.address.AsSlice())
	s.FirstPort, s.Ports = o.firstPort, o.ports
}
