package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Types of ICMP messages (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// Echoes are what a [Ping] came to.
type Echoes struct {
	Sent, Answered int
	// Slowest is the longest time that an answer took.
	Slowest time.Duration
}

// Lost are the requests without an answer.
func (e Echoes) Lost() int { return e.Sent - e.Answered }

// Ping is a running exchange of ICMP echoes. Each request has a number of its
// own, so that an answer that comes late or twice is told from one that never
// comes, for however long it runs.
type Ping struct {
	socket         *net.IPConn
	target         *net.IPAddr
	identifier     uint16
	request, reply byte
	interval       time.Duration
	begin          time.Time
	stopping       chan struct{}
	news           chan struct{} // has one when the rest has changed
	sender         sync.WaitGroup
	receiver       sync.WaitGroup

	mu       sync.Mutex
	answered []bool // by number, of all that were sent
	echoes   Echoes
	err      error
}

// Ping sends a request each interval, until [Ping.Stop]. One that cannot be
// sent is an error. Equivalent to: `ip netns exec NAME ping -i INTERVAL TO`.
func (n *Namespace) Ping(to netip.Addr, interval time.Duration) (*Ping, error) {
	p := &Ping{
		target: &net.IPAddr{IP: to.AsSlice()}, identifier: uint16(rand.Uint32()), request: echoRequest4, reply: echoReply4,
		interval: interval, begin: time.Now(), stopping: make(chan struct{}), news: make(chan struct{}, 1),
	}
	network := "ip4:icmp"
	if to.Is6() {
		network, p.request, p.reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	err := n.Do(func() (err error) {
		socket, err := (&net.ListenConfig{Control: Buffered}).ListenPacket(context.Background(), network, "")
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

func (p *Ping) send() {
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.stopping:
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		number, failed := len(p.answered), p.err != nil
		if !failed {
			p.answered = append(p.answered, false)
			p.echoes.Sent++
		}
		p.mu.Unlock()
		if failed {
			return
		}
		if _, err := p.socket.WriteTo(echoMessage(p.request, p.identifier, uint32(number), time.Since(p.begin)), p.target); err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *Ping) receive() {
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
		m := buffer[:n]
		if !source.IP.Equal(p.target.IP) || n != echoSize || m[0] != p.reply || binary.BigEndian.Uint16(m[4:]) != p.identifier {
			continue
		}
		p.note(binary.BigEndian.Uint32(m[8:]), time.Duration(binary.BigEndian.Uint64(m[12:])))
	}
}

// note notes the answer to a request that was sent some time after the begin.
func (p *Ping) note(number uint32, sent time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(number) >= len(p.answered) || p.answered[number] {
		return
	}
	p.answered[number] = true
	p.echoes.Answered++
	p.echoes.Slowest = max(p.echoes.Slowest, time.Since(p.begin)-sent)
	p.tell()
}

// tell has Stop look again.
func (p *Ping) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *Ping) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.tell()
}

// Echoes returns what it has come to until now.
func (p *Ping) Echoes() (Echoes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.err != nil {
		err = fmt.Errorf("pinging %v: %w", p.target, p.err)
	}
	return p.echoes, err
}

// Stop ends the requests, and waits for answers that are still missing, so long
// at most. It is called once.
func (p *Ping) Stop(wait time.Duration) (Echoes, error) {
	close(p.stopping)
	p.sender.Wait()
	deadline := time.After(wait)
	for waiting := true; waiting; {
		if echoes, err := p.Echoes(); err != nil || echoes.Lost() == 0 {
			break
		}
		select {
		case <-p.news:
		case <-deadline:
			waiting = false
		}
	}
	p.socket.Close()
	p.receiver.Wait()
	return p.Echoes()
}

// echoSize is the length of a message: the header of 8 bytes, the request's
// number, and when it was sent.
const echoSize = 8 + 4 + 8

// echoMessage is an ICMP echo request. For ICMPv6 the kernel makes the checksum.
func echoMessage(kind byte, identifier uint16, number uint32, sent time.Duration) []byte {
	m := make([]byte, echoSize)
	m[0] = kind
	binary.BigEndian.PutUint16(m[4:], identifier)
	binary.BigEndian.PutUint16(m[6:], uint16(number))
	binary.BigEndian.PutUint32(m[8:], number)
	binary.BigEndian.PutUint64(m[12:], uint64(sent))
	// The ones' complement of the ones' complement sum of all words.
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}
