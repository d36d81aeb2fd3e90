package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// patience is how long an answer may take that has to come.
var patience = pace.Far()

// answering starts a UDP server on an address in a namespace. It answers with the
// question, its label and the address that the question came from. Fails the item if it
// cannot be started; the returned function stops it.
func (s *stage) answering(space *netlab.Namespace, address netip.Addr, label string) (port uint16, stop func()) {
	return s.answeringAt(space, netip.AddrPortFrom(address, 0), label)
}

// answeringAt is answering at a certain port.
func (s *stage) answeringAt(space *netlab.Namespace, address netip.AddrPort, label string) (port uint16, stop func()) {
	var socket net.PacketConn
	s.expect(space.Do(func() (err error) {
		socket, err = net.ListenPacket("udp", address.String())
		return err
	}))
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			source := from.(*net.UDPAddr).AddrPort().Addr().Unmap()
			socket.WriteTo(fmt.Appendf(nil, "%s %s %s", buffer[:n], label, source), from)
		}
	}()
	return socket.LocalAddr().(*net.UDPAddr).AddrPort().Port(), func() { socket.Close() }
}

// again is after what time a datagram is sent once more. An answer to the one before is
// as good, however late.
var again = pace.Of(100 * time.Millisecond)

// ask sends datagrams from a namespace until one is answered, and returns the
// label that answers and the source that it saw.
func ask(space *netlab.Namespace, to netip.AddrPort) (label, source string, err error) {
	_, label, source, err = askFor(space, to)
	return label, source, err
}

// askOnce demands that the first datagram is answered. Those sent after it are there to
// tell when its answer will not come: they do not overtake each other.
func askOnce(space *netlab.Namespace, to netip.AddrPort) error {
	number, _, _, err := askFor(space, to)
	if err == nil && number > 1 {
		err = fmt.Errorf("asking %v from %s: datagram %d is answered, and the first was lost", to, space.Name, number)
	}
	return err
}

// askFor sends datagrams, one after the other, until one is answered, and returns which.
func askFor(space *netlab.Namespace, to netip.AddrPort) (number int, label, source string, err error) {
	var answer string
	err = space.Do(func() error {
		socket, err := net.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer socket.Close()
		buffer := make([]byte, 128)
		for number := range int(patience / again) {
			if _, err = socket.Write(strconv.AppendInt(nil, int64(number+1), 10)); err != nil {
				return err
			}
			socket.SetReadDeadline(time.Now().Add(again))
			var n int
			n, err = socket.Read(buffer)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				answer = string(buffer[:n])
				return err
			}
		}
		return err
	})
	if err == nil {
		_, err = fmt.Sscan(answer, &number, &label, &source)
	}
	if err != nil {
		return 0, "", "", fmt.Errorf("asking %v from %s: %w", to, space.Name, err)
	}
	return number, label, source, nil
}

// reach demands that a question from one namespace is answered by an address
// in another, and returns the source that was seen there.
func (s *stage) reach(from, to *netlab.Namespace, address netip.Addr) string {
	port, stop := s.answering(to, address, to.Name)
	defer stop()
	label, source, err := ask(from, netip.AddrPortFrom(address, port))
	s.expect(err)
	if label != to.Name {
		s.failf("%s answered at %v instead of %s", label, address, to.Name)
	}
	return source
}

// works demands that the node and a pod reach each other at every address of
// the pod, without translation.
func (s *stage) works(a attachment, res result) {
	for _, address := range res.addresses() {
		s.reach(s.node.Namespace, a.space, address)
		target := netip.MustParseAddr(node4)
		if address.Is6() {
			target = netip.MustParseAddr(node6)
		}
		if source := s.reach(a.space, s.node.Namespace, target); source != address.String() {
			s.failf("the node saw %s as source of the pod's traffic, not %v", source, address)
		}
	}
}

// ping sends ICMP echo requests from one address to another until one is
// answered.
func ping(space *netlab.Namespace, from, to netip.Addr) error {
	err := space.Do(func() error {
		network := "ip4:icmp"
		if to.Is6() {
			network = "ip6:ipv6-icmp"
		}
		socket, err := net.ListenPacket(network, from.String())
		if err != nil {
			return err
		}
		defer socket.Close()
		for range int(patience / again) {
			err = echo(socket, to)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pinging %v from %v in %s: %w", to, from, space.Name, err)
	}
	return nil
}

// echoID tells our echo requests from those of others.
const echoID = 0x7070

// echo sends an echo request and waits a while for the answer.
func echo(socket net.PacketConn, to netip.Addr) error {
	request, answer := byte(8), byte(0)
	if to.Is6() {
		request, answer = 128, 129
	}
	message := []byte{request, 0, 0, 0, echoID >> 8, echoID & 0xff, 0, 1}
	if to.Is4() { // for IPv6 the kernel does it
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if _, err := socket.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	socket.SetReadDeadline(time.Now().Add(again))
	buffer := make([]byte, 128)
	for {
		n, source, err := socket.ReadFrom(buffer)
		switch {
		case err != nil:
			return err
		case n < len(message) || buffer[0] != answer || binary.BigEndian.Uint16(buffer[4:]) != echoID:
			continue // neighbour discovery, or our own request
		case !source.(*net.IPAddr).IP.Equal(to.AsSlice()):
			return fmt.Errorf("the answer came from %v", source)
		}
		return nil
	}
}

// checksum is that of RFC 1071, for an even number of bytes.
func checksum(message []byte) uint16 {
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}
