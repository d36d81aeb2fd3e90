package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Types of ICMP messages (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// ping returns the round-trip time of an ICMP echo from a namespace.
// Equivalent to: `ip netns exec FROM ping -c1 TO`.
func ping(ctx context.Context, from *netlab.Namespace, to netip.Addr, patience time.Duration) (time.Duration, error) {
	network, request, reply := "ip4:icmp", byte(echoRequest4), byte(echoReply4)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	target := &net.IPAddr{IP: to.AsSlice()}
	var socket *net.IPConn
	err := from.Do(func() (err error) {
		socket, err = net.ListenIP(network, nil)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("opening socket for ping: %w", err)
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	deadline := time.Now().Add(patience)
	buffer := make([]byte, 256)
	for sequence := uint16(1); time.Now().Before(deadline); sequence++ {
		sent := time.Now()
		if _, err := socket.WriteTo(echoMessage(request, sequence), target); err != nil {
			return 0, fmt.Errorf("pinging %v: %w", to, err)
		}
		if err := socket.SetReadDeadline(sent.Add(again)); err != nil {
			return 0, err
		}
		for {
			n, source, err := socket.ReadFromIP(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return 0, fmt.Errorf("pinging %v: %w", to, err)
			}
			// Other ICMP messages arrive as well.
			if source.IP.Equal(target.IP) && n >= 8 && buffer[0] == reply && binary.BigEndian.Uint16(buffer[6:]) == sequence {
				return time.Since(sent), nil
			}
		}
	}
	return 0, fmt.Errorf("pinging %v: no answer for %v", to, patience)
}

// echoMessage is an ICMP echo request of 8 bytes with identifier 0. For ICMPv6
// the kernel replaces the checksum.
func echoMessage(kind byte, sequence uint16) []byte {
	m := make([]byte, 8)
	m[0] = kind
	binary.BigEndian.PutUint16(m[6:], sequence)
	// The ones' complement sum of the other words; the identifier is 0.
	sum := uint32(kind)<<8 + uint32(sequence)
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum+sum>>16))
	return m
}
