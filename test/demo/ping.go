package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// Types of ICMP messages (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// pingInterval is the time between two requests.
const pingInterval = time.Millisecond

// ping is a running exchange of ICMP echoes.
type ping struct {
	socket         *net.IPConn
	target         *net.IPAddr
	request, reply byte
	stopping       chan struct{}
	sender         sync.WaitGroup
	receiver       sync.WaitGroup

	mu       sync.Mutex
	sent     uint16
	answered map[uint16]bool
	err      error
}

// startPing sends a request every millisecond, until stop.
// Equivalent to: `ip netns exec FROM ping -i 0.001 TO`.
func startPing(from *netlab.Namespace, to netip.Addr) (*ping, error) {
	p := &ping{
		target: &net.IPAddr{IP: to.AsSlice()}, request: echoRequest4, reply: echoReply4,
		stopping: make(chan struct{}), answered: map[uint16]bool{},
	}
	network := "ip4:icmp"
	if to.Is6() {
		network, p.request, p.reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	err := from.Do(func() (err error) {
		socket, err := (&net.ListenConfig{Control: netlab.Buffered}).ListenPacket(context.Background(), network, "")
		if err == nil {
			p.socket = socket.(*net.IPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening socket for ping: %w", err)
	}
	p.receiver.Go(p.receive)
	p.sender.Go(p.send)
	return p, nil
}

func (p *ping) send() {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.stopping:
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		// Sequence numbers are not used twice, which is a minute's worth.
		if p.sent++; p.sent == 0 && p.err == nil {
			p.err = errors.New("out of sequence numbers")
		}
		sequence, failed := p.sent, p.err != nil
		p.mu.Unlock()
		if failed {
			return
		}
		if _, err := p.socket.WriteTo(echoMessage(p.request, sequence), p.target); err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *ping) receive() {
	buffer := make([]byte, 256)
	for {
		n, source, err := p.socket.ReadFromIP(buffer)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			p.fail(err)
			return
		}
		// Other ICMP messages arrive as well, and answers to other pings.
		if !source.IP.Equal(p.target.IP) || n < 8 || buffer[0] != p.reply {
			continue
		}
		p.mu.Lock()
		p.answered[binary.BigEndian.Uint16(buffer[6:])] = true
		p.mu.Unlock()
	}
}

func (p *ping) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// counts returns how many requests were sent, and how many answered.
func (p *ping) counts() (sent, answered int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		err = fmt.Errorf("pinging %v: %w", p.target, p.err)
	}
	return int(p.sent), len(p.answered), err
}

// stop ends the requests, waits for answers that are still missing, for a
// second at most, and returns the counts.
func (p *ping) stop() (sent, answered int, err error) {
	close(p.stopping)
	p.sender.Wait()
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(pingInterval) {
		if sent, answered, err := p.counts(); err != nil || answered == sent {
			break
		}
	}
	p.socket.Close()
	p.receiver.Wait()
	return p.counts()
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
