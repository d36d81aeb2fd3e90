package netlab

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// SendAs sends one datagram from an address that need not be the namespace's own, and
// from a port that nobody had before: what begins is a connection of its own.
func (n *Namespace) SendAs(source netip.Addr, to netip.AddrPort, text string) error {
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
			if to.Addr().Is6() {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
			}
			err = unix.SetsockoptInt(int(fd), level, option, 1)
		}), err)
	}}
	return n.Do(func() error {
		socket, err := dialer.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer socket.Close()
		_, err = socket.Write([]byte(text))
		return err
	})
}
