package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// echoPort is where pods and nodes answer.
const echoPort = 7

// echo answers every UDP datagram with its text, the name of who answers, and
// the source address that it came from.
type echo struct {
	socket  *net.UDPConn
	name    string
	mu      sync.Mutex
	senders map[netip.Addr]bool
}

func listen(space *netlab.Namespace, name string, address netip.Addr) (*echo, error) {
	e := &echo{name: name, senders: map[netip.Addr]bool{}}
	err := space.Do(func() (err error) {
		e.socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, echoPort)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("answering at %v of %s: %w", address, name, err)
	}
	go e.serve()
	return e, nil
}

func (e *echo) serve() {
	buffer := make([]byte, 64)
	for {
		n, from, err := e.socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		source := from.Addr().Unmap()
		e.mu.Lock()
		e.senders[source] = true
		e.mu.Unlock()
		// A lost answer is asked for again.
		e.socket.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s %s", buffer[:n], e.name, source), from)
	}
}

func (e *echo) close() { e.socket.Close() }

// seen returns the sources of all questions so far, in order.
func (e *echo) seen() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []netip.Addr
	for a := range e.senders {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

func (e *echo) sources() string { return strings.Trim(fmt.Sprint(e.seen()), "[]") }

// answer is what came back.
type answer struct {
	from string        // who has answered
	saw  netip.Addr    // as the source of the question
	took time.Duration // for the round trip
}

const (
	// questions is how many answers are waited for; the quickest counts, since
	// the first one includes that nodes find each other on the segment.
	questions = 3
	// again is after what time another question is sent. An answer to one before is
	// as good, however late.
	again = 250 * time.Millisecond
)

// ask sends questions from a namespace to an echo and returns the quickest answer.
func ask(ctx context.Context, from *netlab.Namespace, to netip.Addr, patience time.Duration) (answer, error) {
	var socket *net.UDPConn
	err := from.Do(func() (err error) {
		socket, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort)))
		return err
	})
	if err != nil {
		return answer{}, err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	var best answer
	deadline := time.Now().Add(patience)
	var sent []time.Time // by number
	for answered := 0; answered < questions; {
		a, err := exchange(socket, &sent)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return answer{}, fmt.Errorf("no answer for %v", patience)
		case err != nil:
			return answer{}, err
		}
		if answered++; answered == 1 || a.took < best.took {
			best = a
		}
	}
	return best, nil
}

// exchange sends one question more and waits for an answer to any of them.
func exchange(socket *net.UDPConn, sent *[]time.Time) (answer, error) {
	now := time.Now()
	if _, err := fmt.Fprint(socket, len(*sent)); err != nil {
		return answer{}, err
	}
	*sent = append(*sent, now)
	if err := socket.SetReadDeadline(now.Add(again)); err != nil {
		return answer{}, err
	}
	buffer := make([]byte, 128)
	n, err := socket.Read(buffer)
	if err != nil {
		return answer{}, err
	}
	came := time.Now()
	var number int
	var a answer
	var source string
	_, err = fmt.Sscan(string(buffer[:n]), &number, &a.from, &source)
	if err == nil && (number < 0 || number >= len(*sent)) {
		err = fmt.Errorf("there was no question %d", number)
	}
	if err != nil {
		return answer{}, fmt.Errorf("reading answer %q: %w", buffer[:n], err)
	}
	a.took = came.Sub((*sent)[number])
	a.saw, err = netip.ParseAddr(source)
	return a, err
}
