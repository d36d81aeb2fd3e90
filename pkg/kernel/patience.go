package kernel

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Patience is how long an interface's neighbours of one family are taken to be
// reachable without being asked: ten days instead of half a minute.
type Patience struct {
	Side Side
	Link string
	IPv6 bool
}

func (p Patience) String() string {
	return fmt.Sprintf("%s ntable change name %s dev %s base_reachable %d", p.Side.ip(), p.table(), p.Link, patienceMilliseconds)
}

// Dependence implements [Object].
func (p Patience) Dependence() (Side, string) { return p.Side, p.Link }

// patienceMilliseconds is well below 2^31 kernel ticks, and so is half as much
// again, which the kernel may add at random.
const patienceMilliseconds = 10 * 24 * 60 * 60 * 1000

func (p Patience) table() string {
	if p.IPv6 {
		return "ndisc_cache"
	}
	return "arp_cache"
}

// Numbers of linux/neighbour.h: the attributes of a neighbour table.
const (
	tableName       = 1 // NDTA_NAME
	tableParameters = 6 // NDTA_PARMS
	parameterLink   = 1 // NDTPA_IFINDEX
	parameterReach  = 4 // NDTPA_BASE_REACHABLE_TIME
)

func (n *Netlink) bePatient(o Patience) error {
	s, index, err := n.on(o.Side, o.Link)
	if err != nil {
		return err
	}
	r := s.Request(unix.RTM_SETNEIGHTBL, 0)
	f := uint8(unix.AF_INET)
	if o.IPv6 {
		f = unix.AF_INET6
	}
	// A struct ndtmsg is as long as a struct rtgenmsg with its padding.
	r.AddData(&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: f}})
	r.AddData(nl.NewRtAttr(tableName, nl.ZeroTerminated(o.table())))
	parameters := nl.NewRtAttr(tableParameters|unix.NLA_F_NESTED, nil)
	parameters.AddRtAttr(parameterLink, nl.Uint32Attr(uint32(index)))
	parameters.AddRtAttr(parameterReach, nl.Uint64Attr(patienceMilliseconds))
	r.AddData(parameters)
	return s.Acknowledge(r)
}
