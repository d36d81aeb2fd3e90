package fabric_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// listenUDP opens a socket at an address of a namespace.
func listenUDP(space *netlab.Namespace, address netip.Addr) (socket *net.UDPConn, err error) {
	err = space.Do(func() error {
		packets, err := (&net.ListenConfig{Control: netlab.Buffered}).ListenPacket(context.Background(), "udp", netip.AddrPortFrom(address, 0).String())
		if err == nil {
			socket = packets.(*net.UDPConn)
		}
		return err
	})
	return socket, err
}

// pinging is a place that asks another one each millisecond.
type pinging struct {
	name   string
	server *net.UDPConn
	client net.Conn
	stop   chan struct{}
	done   sync.WaitGroup

	mu       sync.Mutex
	sent     int
	answered map[uint64]bool
	refused  map[string]int // errors of the socket, which are losses as well
	last     time.Time      // of the last answer
	pause    time.Duration  // the longest between two answers
}

// ping asks another place each millisecond, from now on.
func (p *place) ping(t *testing.T, to *place, ipv6 bool) *pinging {
	t.Helper()
	g := &pinging{
		name: fmt.Sprintf("%s to %s, %s", p, to, familyName(ipv6)),
		stop: make(chan struct{}), answered: map[uint64]bool{}, refused: map[string]int{},
	}
	var err error
	g.server, err = listenUDP(to.Namespace, to.address(ipv6))
	must(t, err)
	must(t, p.Do(func() (err error) {
		g.client, err = (&net.Dialer{Control: netlab.Buffered}).Dial("udp", g.server.LocalAddr().String())
		return err
	}))
	t.Cleanup(g.close)
	go g.answer()
	g.done.Go(g.ask)
	go g.receive()
	// The first answer shows that the path is there.
	deadline := time.Now().Add(timeout)
	for g.count() == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("ping of %s: no answer", g.name)
		}
		time.Sleep(time.Millisecond)
	}
	return g
}

func (g *pinging) close() {
	g.client.Close()
	g.server.Close()
}

func (g *pinging) answer() {
	buffer := make([]byte, 64)
	for {
		n, from, err := g.server.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = g.server.WriteToUDPAddrPort(buffer[:n], from) // missed by who asked
		}
	}
}

func (g *pinging) ask() {
	ticker := time.NewTicker(pace.Of(time.Millisecond))
	defer ticker.Stop()
	for i := uint64(0); ; i++ {
		_, err := g.client.Write(binary.BigEndian.AppendUint64(nil, i))
		g.mu.Lock()
		g.sent++
		if err != nil {
			g.refused[err.Error()]++
		}
		g.mu.Unlock()
		select {
		case <-g.stop:
			return
		case <-ticker.C:
		}
	}
}

func (g *pinging) receive() {
	buffer := make([]byte, 64)
	for {
		n, err := g.client.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		now := time.Now()
		g.mu.Lock()
		switch {
		case err != nil: // what an ICMP message reported
			g.refused[err.Error()]++
		case n == 8:
			if !g.last.IsZero() {
				g.pause = max(g.pause, now.Sub(g.last))
			}
			g.last = now
			g.answered[binary.BigEndian.Uint64(buffer)] = true
		}
		g.mu.Unlock()
	}
}

func (g *pinging) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.answered)
}

// end stops asking, and returns how many questions there were and how many of
// them had no answer.
func (g *pinging) end() (sent, lost int) {
	close(g.stop)
	g.done.Wait()
	// What is on the way has this long.
	for deadline := time.Now().Add(pace.Of(time.Second)); g.count() < g.sent && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	g.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent, g.sent - len(g.answered)
}

// endWithout ends the ping, of which nothing may have been lost.
func (g *pinging) endWithout(t *testing.T) {
	t.Helper()
	sent, lost := g.end()
	if lost > 0 {
		t.Errorf("ping of %s: %d of %d lost; %v", g.name, lost, sent, g.refused)
	}
	t.Logf("ping of %s: %d sent, %d lost, longest pause %s", g.name, sent, lost, g.pause.Round(time.Millisecond))
}

// endWithin ends the ping, of which at most so many may have been lost.
func (g *pinging) endWithin(t *testing.T, most int) {
	t.Helper()
	sent, lost := g.end()
	if lost > most {
		t.Errorf("ping of %s: %d of %d lost, which is more than %d; %v", g.name, lost, sent, most, g.refused)
	}
	t.Logf("ping of %s: %d sent, %d lost, longest pause %s", g.name, sent, lost, g.pause.Round(time.Millisecond))
}

// streaming is a TCP connection on which bytes flow all the time.
type streaming struct {
	name           string
	client, server net.Conn
	stop           atomic.Bool
	wrote, read    chan error
	sent, got      int64
	pause          time.Duration // the longest without a byte
}

// stream sends bytes to another place, from now on.
func (p *place) stream(t *testing.T, to *place, ipv6 bool) *streaming {
	t.Helper()
	s := &streaming{name: fmt.Sprintf("%s to %s, %s", p, to, familyName(ipv6)), wrote: make(chan error, 1), read: make(chan error, 1)}
	var listener net.Listener
	must(t, to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.address(ipv6), 0).String())
		return err
	}))
	defer listener.Close()
	must(t, p.Do(func() (err error) {
		s.client, err = net.DialTimeout("tcp", listener.Addr().String(), timeout)
		return err
	}))
	var err error
	s.server, err = listener.Accept()
	must(t, err)
	t.Cleanup(func() {
		s.client.Close()
		s.server.Close()
	})
	// Offsets in the block tell whether bytes are missing or come twice.
	block := make([]byte, 1<<16)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(block) // never fails
	go func() { s.wrote <- s.write(block) }()
	go func() { s.read <- s.check(block) }()
	return s
}

func (s *streaming) write(block []byte) error {
	const piece = 8 << 10
	ticker := time.NewTicker(pace.Of(time.Millisecond))
	defer ticker.Stop()
	for !s.stop.Load() {
		at := int(s.sent % int64(len(block)))
		n, err := s.client.Write(block[at : at+piece])
		s.sent += int64(n)
		if err != nil {
			return err
		}
		<-ticker.C
	}
	return s.client.(*net.TCPConn).CloseWrite()
}

func (s *streaming) check(block []byte) error {
	buffer := make([]byte, len(block))
	last := time.Now()
	for {
		at := int(s.got % int64(len(block)))
		n, err := s.server.Read(buffer[:len(block)-at])
		if !bytes.Equal(buffer[:n], block[at:at+n]) {
			return fmt.Errorf("other bytes came than those sent, after %d", s.got)
		}
		s.got += int64(n)
		now := time.Now()
		s.pause = max(s.pause, now.Sub(last))
		last = now
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end stops the stream, which has to be whole.
func (s *streaming) end(t *testing.T) {
	t.Helper()
	s.stop.Store(true)
	// A connection that has lost its way retransmits ever later.
	deadline := time.Now().Add(4 * timeout)
	s.client.SetDeadline(deadline)
	s.server.SetDeadline(deadline)
	if err := errors.Join(<-s.wrote, <-s.read); err != nil {
		t.Errorf("stream of %s: %v", s.name, err)
	}
	if s.sent != s.got {
		t.Errorf("stream of %s: %d bytes sent, %d came", s.name, s.sent, s.got)
	}
	t.Logf("stream of %s: %d kB, longest pause %s", s.name, s.got>>10, s.pause.Round(time.Millisecond))
}
