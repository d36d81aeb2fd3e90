package loadbalancer_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// prober asks by ARP who has an address, again and again, and notes who has answered which
// question: each question has a source of its own, which the answer names.
type prober struct {
	fd    int
	link  *net.Interface
	ip    netip.Addr
	every time.Duration

	mu      sync.Mutex
	asked   int
	sent    []time.Time      // when, by the number of the question
	answers map[string][]int // of each MAC address, the numbers of the questions
	stop    chan struct{}
	done    sync.WaitGroup
}

func startProber(t *testing.T, from *netlab.Namespace, ip netip.Addr) *prober {
	t.Helper()
	p := &prober{ip: ip, every: 10 * time.Millisecond, answers: map[string][]int{}, stop: make(chan struct{})}
	must(t, from.Do(func() (err error) {
		if p.link, err = net.InterfaceByName("eth0"); err != nil {
			return err
		}
		protocol := binary.NativeEndian.Uint16([]byte{0x08, 0x06})
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol)); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	}))
	p.done.Go(p.ask)
	p.done.Go(p.hear)
	t.Cleanup(func() {
		close(p.stop)
		p.done.Wait()
		unix.Close(p.fd)
	})
	return p
}

func (p *prober) ask() {
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(p.every):
		}
		p.mu.Lock()
		number := p.asked
		p.asked++
		p.sent = append(p.sent, time.Now())
		p.mu.Unlock()
		frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		frame = append(append(frame, p.link.HardwareAddr...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
		frame = append(append(frame, p.link.HardwareAddr...), 10, byte(number>>16), byte(number>>8), byte(number))
		frame = append(append(frame, 0, 0, 0, 0, 0, 0), p.ip.AsSlice()...)
		_ = unix.Sendto(p.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: p.link.Index}) // the next one comes soon
	}
}

func (p *prober) hear() {
	buffer := make([]byte, 128)
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(p.fd, buffer, 0)
		if err != nil || n < 42 || buffer[21] != 2 || buffer[38] != 10 {
			continue
		}
		if from, _ := netip.AddrFromSlice(buffer[28:32]); from != p.ip {
			continue
		}
		number := int(buffer[39])<<16 | int(buffer[40])<<8 | int(buffer[41])
		mac := net.HardwareAddr(buffer[22:28]).String()
		p.mu.Lock()
		p.answers[mac] = append(p.answers[mac], number)
		p.mu.Unlock()
	}
}

// now is the number of the next question.
func (p *prober) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// answered returns the first and the last question from one on that a MAC address has
// answered; false where it has answered none.
func (p *prober) answered(mac string, from int) (first, last int, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, number := range p.answers[mac] {
		if number < from {
			continue
		}
		if !any || number < first {
			first = number
		}
		if !any || number > last {
			last = number
		}
		any = true
	}
	return first, last, any
}

// between is the time between two questions.
func (p *prober) between(a, b int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[b].Sub(p.sent[a]).Round(time.Millisecond)
}

// both returns how many questions from one on several have answered.
func (p *prober) both(from int) (count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := map[int]int{}
	for _, numbers := range p.answers {
		for _, number := range numbers {
			if by[number]++; number >= from && by[number] == 2 {
				count++
			}
		}
	}
	return count
}

// unanswered returns how many questions nobody has answered, of those from one on and
// before another.
func (p *prober) unanswered(from, before int) (count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answered := map[int]bool{}
	for _, numbers := range p.answers {
		for _, number := range numbers {
			answered[number] = true
		}
	}
	for number := from; number < before; number++ {
		if !answered[number] {
			count++
		}
	}
	return count
}

// more waits until so many more questions were asked.
func (s *site) more(p *prober, count int) {
	s.t.Helper()
	from := p.now()
	s.Eventually(fmt.Sprintf("%d more questions", count), func() error {
		if n := p.now() - from; n < count {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}

// awaitAnswer waits until a MAC address answers a question asked from now on.
func (s *site) awaitAnswer(p *prober, mac string) {
	s.t.Helper()
	from := p.now()
	s.Eventually("answers of "+mac, func() error {
		if _, _, any := p.answered(mac, from); !any {
			return fmt.Errorf("%d questions asked", p.now()-from)
		}
		return nil
	})
}

// macOf is the MAC address of a node's interface on the segment.
func (s *site) macOf(node string) string {
	s.t.Helper()
	l, err := s.Node(node).Netlink().LinkByName("eth0")
	must(s.t, err)
	return l.Attrs().HardwareAddr.String()
}
