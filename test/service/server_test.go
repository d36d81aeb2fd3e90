package service_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// timeout is for one answer that has to come.
var timeout = pace.Far()

// silence is how long no answer has to come. A machine that is late may miss an answer
// that should not be there, and cannot make one up.
const silence = 300 * time.Millisecond

// server answers every line, over TCP and UDP, with its name and the source that
// it sees.
type server struct {
	name string
	mu   sync.Mutex
	open int // connections
	seen int // connections ever
}

func serve(t *testing.T, ns *netlab.Namespace, name string, at netip.AddrPort) *server {
	t.Helper()
	s := &server{name: name}
	var listener net.Listener
	var socket net.PacketConn
	must(t, ns.Do(func() (err error) {
		if listener, err = net.Listen("tcp", at.String()); err != nil {
			return err
		}
		socket, err = net.ListenPacket("udp", at.String())
		return err
	}))
	t.Cleanup(func() {
		listener.Close()
		socket.Close()
	})
	netlab.Accept(listener, s.connection)
	go func() {
		buffer := make([]byte, 64)
		for {
			_, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(s.answer(from), from)
		}
	}()
	return s
}

func (s *server) answer(from net.Addr) []byte {
	source, _ := netip.ParseAddrPort(from.String())
	return fmt.Appendf(nil, "%s %s\n", s.name, source.Addr().Unmap())
}

func (s *server) connection(c net.Conn) {
	s.count(1)
	defer s.count(-1)
	defer c.Close()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := c.Write(s.answer(c.RemoteAddr())); err != nil {
			return
		}
	}
}

func (s *server) count(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += by
	if by > 0 {
		s.seen++
	}
}

// connections returns how many there ever were.
func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// answer is what a server says.
type answer struct {
	server string
	source netip.Addr
}

// conversation is a connection over which one asks again and again.
type conversation struct {
	net.Conn
	lines *bufio.Reader
}

// dial opens a conversation.
func dial(ns *netlab.Namespace, protocol string, to netip.AddrPort, patience time.Duration) (c *conversation, err error) {
	err = ns.Do(func() error {
		c, err = dialHere(protocol, to, patience)
		return err
	})
	return c, err
}

// dialHere is dial in the thread's namespace.
func dialHere(protocol string, to netip.AddrPort, patience time.Duration) (*conversation, error) {
	c, err := net.DialTimeout(protocol, to.String(), patience)
	if err != nil {
		return nil, err
	}
	return &conversation{c, bufio.NewReader(c)}, nil
}

// ask sends a line and reads the answer.
func (c *conversation) ask(patience time.Duration) (a answer, err error) {
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "?\n"); err != nil {
		return a, err
	}
	line, err := c.lines.ReadString('\n')
	if err != nil {
		return a, err
	}
	name, source, _ := strings.Cut(strings.TrimSpace(line), " ")
	a.server = name
	a.source, err = netip.ParseAddr(source)
	return a, err
}

// ask connects, asks once and ends.
func ask(ns *netlab.Namespace, protocol string, to netip.AddrPort) (a answer, err error) {
	err = ns.Do(func() error {
		a, err = askHere(protocol, to)
		return err
	})
	return a, err
}

// askHere is ask in the thread's namespace. It asks more than once, since what becomes of a
// connection's first packets need not become of the others.
func askHere(protocol string, to netip.AddrPort) (answer, error) {
	c, err := dialHere(protocol, to, timeout)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	first, err := c.ask(timeout)
	const more = 3
	for range more {
		if err != nil {
			return first, err
		}
		var again answer
		if again, err = c.ask(timeout); err == nil && again != first {
			err = fmt.Errorf("the connection was first answered by %v, and then by %v", first, again)
		}
	}
	return first, err
}

// askRefused fails unless the connection is refused.
func askRefused(ns *netlab.Namespace, protocol string, to netip.AddrPort) error {
	c, err := dial(ns, protocol, to, timeout)
	if err == nil {
		defer c.Close()
		_, err = c.ask(timeout)
	}
	// A node's own datagram is refused before it is sent.
	if !errors.Is(err, syscall.ECONNREFUSED) && !(protocol == "udp" && errors.Is(err, syscall.EPERM)) {
		return fmt.Errorf("%v, and not refused", err)
	}
	return nil
}

// askDropped fails if anything comes back.
func askDropped(ns *netlab.Namespace, protocol string, to netip.AddrPort) error {
	c, err := dial(ns, protocol, to, silence)
	if err == nil {
		defer c.Close()
		_, err = c.ask(silence)
	}
	var late net.Error
	if !(errors.As(err, &late) && late.Timeout()) && !(protocol == "udp" && errors.Is(err, syscall.EPERM)) {
		return fmt.Errorf("%v, and not silence", err)
	}
	return nil
}
