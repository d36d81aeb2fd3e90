package host

import (
	"encoding/binary"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of RTM_NEWNETCONF (linux/netconf.h).
const (
	netconfInterface  = 1 // index; -1 stands for all, -2 for the default
	netconfForwarding = 2
	netconfRPFilter   = 3
)

// changedSettings returns the interfaces (index; -1 for all, -2 for the default)
// of which messages of rtnetlink announce forwarding or rp_filter. RTM_DELNETCONF
// only says that an interface has gone.
func changedSettings(datagram []byte) []int {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return nil
	}
	var interfaces []int
	for _, m := range messages {
		// A family, and three bytes of padding, come before the attributes.
		if m.Header.Type != unix.RTM_NEWNETCONF || len(m.Data) < 4 {
			continue
		}
		attributes, err := nl.ParseRouteAttr(m.Data[4:])
		if err != nil {
			continue
		}
		index, ours := 0, false
		for _, a := range attributes {
			switch a.Attr.Type {
			case netconfInterface:
				if len(a.Value) >= 4 {
					index = int(int32(binary.NativeEndian.Uint32(a.Value)))
				}
			case netconfForwarding, netconfRPFilter:
				ours = true
			}
		}
		if ours {
			interfaces = append(interfaces, index)
		}
	}
	return interfaces
}
