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
	since    uint64 // the first question that may not be lost
	spare    int    // how many of the later ones may be lost nevertheless
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
	await(t, "an answer to the ping of "+g.name, func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.answered) == 0 {
			return fmt.Errorf("%d sent, none answered; %v", g.sent, g.refused)
		}
		return nil
	})
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
			_, err = g.server.WriteToUDPAddrPort(buffer[:n], from)
		}
		if err != nil {
			g.mu.Lock()
			g.refused["server: "+err.Error()]++
			g.mu.Unlock()
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

// restored says that the path is whole from now on: what was lost until now may be.
func (g *pinging) restored() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = uint64(g.sent) + 1 // of which one may be on its way into the socket
}

// rerouted says that routes on the way are replaced from now on. Linux discards what has
// looked up such a route and is not yet through the node, so one question or answer may be
// lost for each; seen once in some thousands, on a machine with much else to do. A
// way that is missing for a moment takes dozens.
func (g *pinging) rerouted(routes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spare += routes
}

// unanswered counts the questions without an answer: those that may be lost, and the
// others.
func (g *pinging) unanswered() (before, after int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range uint64(g.sent) {
		switch {
		case g.answered[i]:
		case i < g.since:
			before++
		default:
			after++
		}
	}
	return before, after
}

// end stops asking. Nothing may have been lost, or nothing since the path was restored,
// but what rerouted allows.
func (g *pinging) end(t *testing.T) {
	t.Helper()
	close(g.stop)
	g.done.Wait()
	// What is on the way arrives.
	_, err := pace.Await(pace.Far(), func() error {
		if _, lost := g.unanswered(); lost > g.spare {
			return fmt.Errorf("%d of %d lost", lost, g.sent)
		}
		return nil
	})
	g.close()
	before, lost := g.unanswered()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		t.Errorf("ping of %s: %v; %v", g.name, err, g.refused)
	}
	t.Logf("ping of %s: %d sent, %d lost, %d of them while it could be, longest pause %s", g.name, g.sent, before+lost, before, g.pause.Round(time.Millisecond))
}

// streaming is a TCP connection on which bytes flow all the time.
type streaming struct {
	name           string
	client, server net.Conn
	stop           atomic.Bool
	wrote, read    chan error
	sent           int64
	got            atomic.Int64
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
		at := int(s.got.Load() % int64(len(block)))
		n, err := s.server.Read(buffer[:len(block)-at])
		if !bytes.Equal(buffer[:n], block[at:at+n]) {
			return fmt.Errorf("other bytes came than those sent, after %d", s.got.Load())
		}
		s.got.Add(int64(n))
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

// awaitBytes waits until so many have come.
func (s *streaming) awaitBytes(t *testing.T, many int64) {
	t.Helper()
	await(t, "the stream of "+s.name+" to get on", func() error {
		if got := s.got.Load(); got < many {
			return fmt.Errorf("%d bytes came, want %d", got, many)
		}
		return nil
	})
}

// end stops the stream, which has to be whole.
func (s *streaming) end(t *testing.T) {
	t.Helper()
	s.stop.Store(true)
	// A connection that has lost its way retransmits ever later.
	deadline := time.Now().Add(timeout)
	s.client.SetDeadline(deadline)
	s.server.SetDeadline(deadline)
	if err := errors.Join(<-s.wrote, <-s.read); err != nil {
		t.Errorf("stream of %s: %v", s.name, err)
	}
	if got := s.got.Load(); s.sent != got {
		t.Errorf("stream of %s: %d bytes sent, %d came", s.name, s.sent, got)
	}
	t.Logf("stream of %s: %d kB, longest pause %s", s.name, s.got.Load()>>10, s.pause.Round(time.Millisecond))
}
