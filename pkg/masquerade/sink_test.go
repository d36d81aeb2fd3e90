package masquerade

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// sink receives datagrams and answers none.
type sink struct {
	socket  net.PacketConn
	address netip.Addr
	port    uint16
}

func newSink(t *testing.T, n *netlab.Namespace, address string) *sink {
	t.Helper()
	s := &sink{address: netip.MustParseAddr(address)}
	err := n.Do(func() (err error) {
		s.socket, err = net.ListenPacket("udp", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.socket.Close() })
	s.port = s.socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return s
}

// send sends the sink a datagram from one of a namespace's addresses.
func (s *sink) send(t *testing.T, from *netlab.Namespace, source netip.Addr) {
	t.Helper()
	socket := s.connect(t, from, source)
	defer socket.Close()
	s.sendBy(t, socket)
}

// connect opens a socket that sends to the sink from one of a namespace's addresses.
func (s *sink) connect(t *testing.T, from *netlab.Namespace, source netip.Addr) (socket *net.UDPConn) {
	t.Helper()
	err := from.Do(func() (err error) {
		socket, err = net.DialUDP("udp", &net.UDPAddr{IP: source.AsSlice()}, &net.UDPAddr{IP: s.address.AsSlice(), Port: int(s.port)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return socket
}

func (s *sink) sendBy(t *testing.T, socket *net.UDPConn) {
	t.Helper()
	if _, err := socket.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
}

// next returns the source of the next datagram.
func (s *sink) next(timeout time.Duration) (netip.Addr, error) {
	s.socket.SetReadDeadline(time.Now().Add(timeout))
	_, from, err := s.socket.ReadFrom(make([]byte, 64))
	if err != nil {
		return netip.Addr{}, err
	}
	return from.(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// until returns the sources of all datagrams up to that from the given one.
func (s *sink) until(t *testing.T, last string) (sources []string) {
	t.Helper()
	for {
		from, err := s.next(patience)
		if err != nil {
			t.Fatalf("waiting for a datagram from %s after %v: %v", last, sources, err)
		}
		sources = append(sources, from.String())
		if from.String() == last {
			return sources
		}
	}
}
