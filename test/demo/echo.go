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
	// again is after what time a datagram counts as lost.
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
	for number, answered := 1, 0; answered < questions; number++ {
		a, err := exchange(socket, number)
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

// exchange sends one question and waits for its own answer.
func exchange(socket *net.UDPConn, number int) (answer, error) {
	sent := time.Now()
	if _, err := fmt.Fprint(socket, number); err != nil {
		return answer{}, err
	}
	if err := socket.SetReadDeadline(sent.Add(again)); err != nil {
		return answer{}, err
	}
	buffer := make([]byte, 128)
	for {
		n, err := socket.Read(buffer)
		if err != nil {
			return answer{}, err
		}
		took := time.Since(sent)
		var of int
		var a answer
		var source string
		if _, err := fmt.Sscan(string(buffer[:n]), &of, &a.from, &source); err != nil {
			return answer{}, fmt.Errorf("reading answer %q: %w", buffer[:n], err)
		}
		if of != number {
			continue // late: it was taken for lost
		}
		a.took = took
		a.saw, err = netip.ParseAddr(source)
		return a, err
	}
}
