package kernel

import (
	"errors"
	"fmt"
	"net"

	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What somebody else has that a tunnel needs: an error that is one of these
// says what [Obstacle] is about.
var (
	ErrNameTaken   = errors.New("interface of that name is no VXLAN device")
	ErrNumberTaken = errors.New("VNI and UDP port are in use")
	ErrPortTaken   = errors.New("UDP port is in use")
)

// ErrNoTunnel says that something could not be put on the tunnel because that
// is not there, is down, or is somebody else's.
var ErrNoTunnel = errors.New("tunnel is not usable")

// Obstacle is the error of a tunnel that somebody else's object keeps from being
// made.
type Obstacle struct {
	Sort error // ErrNameTaken, ErrNumberTaken or ErrPortTaken
	// Link is the interface in the way; "" where this network namespace has none,
	// as where a program has the port, or a VXLAN device was made here and moved
	// away: it keeps port and VNI.
	Link string
	Type string // of the interface: "bridge", "vxlan"
	Err  error  // the kernel's words
}

func (o *Obstacle) Error() string {
	if o.Link == "" {
		return fmt.Sprintf("%v: %v", o.Sort, o.Err)
	}
	return fmt.Sprintf("interface %s of type %s is there already: %v: %v", o.Link, o.Type, o.Sort, o.Err)
}

// Unwrap returns the sort and the kernel's error.
func (o *Obstacle) Unwrap() []error { return []error{o.Sort, o.Err} }

// nameTaken is the obstacle of an interface that has the tunnel's name.
func nameTaken(l vishvananda.Link) error {
	return &Obstacle{Sort: ErrNameTaken, Link: l.Attrs().Name, Type: l.Type(), Err: ErrExists}
}

// explainNumber finds the device that made the kernel refuse a VXLAN device's
// creation with EEXIST. Equivalent to: `ip -d link show type vxlan`.
func (f *Fabric) explainNumber(want Tunnel, err error) error {
	if !errors.Is(err, ErrExists) {
		return err
	}
	return f.explain(want, ErrNumberTaken, err, func(d *vishvananda.Vxlan) bool {
		return !d.FlowBased && d.VxlanId == want.VNI && d.Port == want.Port && sameFamily(d, want)
	})
}

// explainPort finds the device that keeps the tunnel from being brought up:
// VXLAN devices share a port only if they read the packets in the same way, and
// one in external mode (collect metadata) shares it with none that is not.
func (f *Fabric) explainPort(want Tunnel, err error) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	return f.explain(want, ErrPortTaken, err, func(d *vishvananda.Vxlan) bool {
		return d.Port == want.Port && d.Attrs().Flags&net.FlagUp != 0 && (d.FlowBased || sameFamily(d, want))
	})
}

// sameFamily reports whether a device's outer packets are of the tunnel's family:
// each family has ports and numbers of its own.
func sameFamily(d *vishvananda.Vxlan, want Tunnel) bool {
	ipv6 := len(d.SrcAddr) == net.IPv6len && d.SrcAddr.To4() == nil || len(d.Group) == net.IPv6len && d.Group.To4() == nil
	return ipv6 == want.From.Is6()
}

func (f *Fabric) explain(want Tunnel, sort, err error, inTheWay func(*vishvananda.Vxlan) bool) error {
	o := &Obstacle{Sort: sort, Err: err}
	answer, listing := f.socket.Dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if listing != nil {
		return errors.Join(o, fmt.Errorf("looking for the interface in the way: %w", listing))
	}
	for _, message := range answer {
		l, err := vishvananda.LinkDeserialize(nil, message)
		if err != nil {
			continue // of a kind that the library cannot read, and no VXLAN device
		}
		if d, is := l.(*vishvananda.Vxlan); is && d.Name != want.Name && inTheWay(d) {
			o.Link, o.Type = d.Name, d.Type()
			return o
		}
	}
	return o
}
