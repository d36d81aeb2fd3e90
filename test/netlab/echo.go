package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Echo answers UDP datagrams at an address of a namespace with the source
// address that it saw, until the returned function is called. Port 0 of the
// address takes a free one; the returned address has it.
func (n *Namespace) Echo(address netip.AddrPort) (at netip.AddrPort, stop func(), err error) {
	var socket net.PacketConn
	err = n.Do(func() (err error) {
		socket, err = net.ListenPacket("udp", address.String())
		return err
	})
	if err != nil {
		return at, nil, fmt.Errorf("listening on %s in namespace %s: %w", address, n.Name, err)
	}
	go func() {
		buffer := make([]byte, 64)
		for {
			_, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			seen := from.(*net.UDPAddr).AddrPort().Addr().Unmap()
			// An answer that cannot be sent is missed by who waits for it.
			_, _ = socket.WriteTo([]byte(seen.String()), from)
		}
	}()
	port := socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return netip.AddrPortFrom(address.Addr(), port), func() { socket.Close() }, nil
}

// Ask sends one datagram to an [Namespace.Echo] and returns the source that it
// saw and the round trip's time. From is the source to send from; the zero
// Addr lets the kernel choose.
func (n *Namespace) Ask(from netip.Addr, to netip.AddrPort, timeout time.Duration) (seen netip.Addr, trip time.Duration, err error) {
	err = n.Do(func() error {
		local := &net.UDPAddr{}
		if from.IsValid() {
			local.IP = from.AsSlice()
		}
		socket, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer socket.Close()
		socket.SetDeadline(time.Now().Add(timeout))
		begin := time.Now()
		if _, err := socket.Write([]byte("?")); err != nil {
			return err
		}
		buffer := make([]byte, 64)
		length, err := socket.Read(buffer)
		if err != nil {
			return err
		}
		trip = time.Since(begin)
		seen, err = netip.ParseAddr(string(buffer[:length]))
		return err
	})
	if err != nil {
		return seen, 0, fmt.Errorf("asking %s from namespace %s: %w", to, n.Name, err)
	}
	return seen, trip, nil
}
