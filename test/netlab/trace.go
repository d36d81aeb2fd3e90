package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Messages of ICMP that say where a packet has ended (RFC 792, RFC 4443).
const (
	unreachable4, exceeded4 = 3, 11
	unreachable6, exceeded6 = 1, 3
)

// mostHops is more than any lab has.
const mostHops = 16

// Trace returns who a packet passes on its way to an address, the last one included, by
// sending some that may pass one more machine each. Nobody may listen at UDP port 33434
// there. Equivalent to: `ip netns exec NAME traceroute -n TO`.
func (n *Namespace) Trace(to netip.Addr, wait time.Duration) (hops []netip.Addr, err error) {
	network, udp, level, option := "ip4:icmp", "udp4", unix.IPPROTO_IP, unix.IP_TTL
	ends, passes := byte(unreachable4), byte(exceeded4)
	if to.Is6() {
		network, udp, level, option = "ip6:ipv6-icmp", "udp6", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
		ends, passes = unreachable6, exceeded6
	}
	var answers *net.IPConn
	var probes net.PacketConn
	err = n.Do(func() error {
		socket, err := (&net.ListenConfig{}).ListenPacket(context.Background(), network, "")
		if err != nil {
			return err
		}
		answers = socket.(*net.IPConn)
		probes, err = (&net.ListenConfig{}).ListenPacket(context.Background(), udp, ":0")
		return err
	})
	if answers != nil {
		defer answers.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("opening sockets for trace: %w", err)
	}
	defer probes.Close()
	raw, err := probes.(*net.UDPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	const port = 33434
	for ttl := 1; ttl <= mostHops; ttl++ {
		var failure error
		err := raw.Control(func(fd uintptr) { failure = unix.SetsockoptInt(int(fd), level, option, ttl) })
		if err = errors.Join(err, failure); err != nil {
			return hops, err
		}
		from, last, err := ask(probes, answers, netip.AddrPortFrom(to, port), ends, passes, wait)
		if err != nil {
			return hops, fmt.Errorf("hop %d: %w", ttl, err)
		}
		if hops = append(hops, from); last {
			return hops, nil
		}
	}
	return hops, fmt.Errorf("there are more than %d hops", mostHops)
}

// ask sends a packet until somebody says where it has ended: one may be lost, and a kernel
// limits how often it says so.
func ask(probes net.PacketConn, answers *net.IPConn, to netip.AddrPort, ends, passes byte, wait time.Duration) (from netip.Addr, last bool, err error) {
	const again = 200 * time.Millisecond
	buffer := make([]byte, 512)
	for deadline := time.Now().Add(wait); ; {
		if _, err := probes.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(to)); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return from, false, err
		}
		if err := answers.SetReadDeadline(time.Now().Add(again)); err != nil {
			return from, false, err
		}
		for {
			n, source, err := answers.ReadFromIP(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return from, false, err
			}
			if kind := buffer[0]; n > 0 && (kind == ends || kind == passes) {
				address, _ := netip.AddrFromSlice(source.IP)
				return address.Unmap(), kind == ends, nil
			}
		}
		if time.Now().After(deadline) {
			return from, false, errors.New("nobody answers")
		}
	}
}
