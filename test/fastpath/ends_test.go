package fastpath_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// vanish closes a connection of which the other end is told nothing, as where the power
// goes.
func vanish(c net.Conn) error {
	err := onSocket(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	return errors.Join(err, c.Close())
}

// accepting gives the connections to a port of a namespace to the test.
func accepting(t *testing.T, at *netlab.Namespace, port uint16) <-chan net.Conn {
	t.Helper()
	connections := make(chan net.Conn, 10)
	at.Serve(t, port, func(c net.Conn) {
		t.Cleanup(func() { c.Close() })
		connections <- c
	})
	return connections
}

// pair is a connection of which the test has both ends.
type pair struct {
	client, server *talk
}

func (s *site) pair(from *cluster.Pod, source, to netip.AddrPort, accepted <-chan net.Conn) pair {
	s.t.Helper()
	c, err := dial(from.Namespace, source, to)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	server := <-accepted
	return pair{&talk{c, bufioReader(c)}, &talk{server, bufioReader(server)}}
}

// says sends a line by one end and reads it at the other.
func says(from, to *talk, text string) error {
	deadline := pace.Far()
	wrote := make(chan error, 1)
	go func() {
		_, err := fmt.Fprintln(from, text)
		wrote <- err
	}()
	line, err := readLine(to, deadline)
	if err == nil && line != text+"\n" {
		err = fmt.Errorf("%d bytes came that are not the %d that were sent", len(line), len(text)+1)
	}
	return errors.Join(err, <-wrote)
}

// fast talks until both directions take the fast path.
func (p pair) fast(s *site, nodes ...*cluster.Node) {
	s.t.Helper()
	a, b := p.client.ends()
	for _, n := range nodes {
		before := s.takes(n, a, b)
		s.Eventually(fmt.Sprintf("%s and %s on the fast path of %s", a, b, n.Name), func() error {
			must(s.t, says(p.client, p.server, "question"))
			must(s.t, says(p.server, p.client, "answer"))
			if f, ok, err := flow(n, a, b); !s.kernel() && (err != nil || !ok || !f.Active || f.There.Packets+f.Back.Packets < before+4) {
				return fmt.Errorf("%+v, %v", f, err)
			}
			return nil
		})
	}
}

// forgotten waits until a node remembers nothing of a flow.
func (s *site) forgotten(n *cluster.Node, a, b netip.AddrPort) {
	s.t.Helper()
	s.Eventually(fmt.Sprintf("%s to forget %s and %s", n.Name, a, b), func() error {
		if f, ok, err := flow(n, a, b); ok || err != nil {
			return fmt.Errorf("%+v, %v", f, err)
		}
		return nil
	})
}

// Both ends close at the same time, with much under way in both directions: all of it
// arrives, then the end, and nothing is remembered.
func TestSimultaneousClose(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 2, "--fabric", "direct", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		accepted := accepting(t, web.Namespace, 80)
		for round := range 10 {
			to := netip.AddrPortFrom(web.Address(round%2 > 0), 80)
			p := s.pair(client, netip.AddrPort{}, to, accepted)
			p.fast(s, s.Nodes...)
			text := strings.Repeat("x", 100_000)
			begin, closed := make(chan struct{}), make(chan error, 2)
			for _, k := range []*talk{p.client, p.server} {
				go func() {
					<-begin
					_, err := io.WriteString(k, text)
					closed <- errors.Join(err, k.Conn.(*net.TCPConn).CloseWrite())
				}()
			}
			close(begin)
			got := make(chan error, 2)
			for _, k := range []*talk{p.client, p.server} {
				go func() {
					all, err := readAll(k)
					if err == nil && all != text {
						err = fmt.Errorf("%d bytes of %d came, or others", len(all), len(text))
					}
					got <- err
				}()
			}
			must(t, errors.Join(<-got, <-got, <-closed, <-closed))
			a, b := p.client.ends()
			for _, n := range s.Nodes {
				s.forgotten(n, a, b)
			}
		}
	})
}

// One end vanishes without a word: the other one is told as soon as it says something, and
// a new connection by the same ports is possible.
func TestHalfOpenConnection(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 2, "--fabric", "direct", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		accepted := accepting(t, web.Namespace, 80)
		for _, ipv6 := range []bool{false, true} {
			source, to := netip.AddrPortFrom(client.Address(ipv6), 40000), netip.AddrPortFrom(web.Address(ipv6), 80)
			// The server vanishes.
			p := s.pair(client, source, to, accepted)
			p.fast(s, s.Nodes...)
			must(t, vanish(p.server.Conn))
			_, err := fmt.Fprintln(p.client, "who is there?")
			must(t, err)
			if _, err := readLine(p.client, pace.Far()); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("who talks to an end that has vanished is told %v", err)
			}
			must(t, p.client.Close())
			// The client vanishes, and comes back by the same port, to a server that knows of
			// no end.
			p = s.pair(client, source, to, accepted)
			p.fast(s, s.Nodes...)
			must(t, vanish(p.client.Conn))
			again := s.pair(client, source, to, accepted)
			again.fast(s, s.Nodes...)
			if _, err := readLine(p.server, pace.Far()); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the old end is told %v", err)
			}
			again.fast(s, s.Nodes...)
			must(t, again.client.Conn.(*net.TCPConn).SetLinger(0))
			must(t, again.client.Close())
			if _, err := readLine(again.server, pace.Far()); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the end is %v, and no reset", err)
			}
			for _, n := range s.Nodes {
				s.forgotten(n, source, to)
			}
		}
	})
}

// A connection that connection tracking has forgotten, since its timeouts are short, goes
// on: what passes meanwhile by the fast path does not keep it in mind.
func TestConnectionOutlivesConntrack(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 1, datapath)
		n := s.Nodes[0]
		if _, err := os.Stat("/proc/net/nf_conntrack"); err != nil {
			t.Skip("the kernel does not list its connections (CONFIG_NF_CONNTRACK_PROCFS): ", err)
		}
		web, client := s.pod(n, "web"), s.pod(n, "client")
		web.Namespace.ServeLines(t, 80)
		for _, ipv6 := range []bool{false, true} {
			k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
			for range 2 {
				s.fast(k, n)
				a, b := k.ends()
				must(t, n.SetSysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "1"))
				must(t, k.say("with a short timeout")) // which the next packet that is tracked has
				s.Eventually("connection tracking to forget it", func() error {
					if !s.kernel() {
						must(t, k.say("meanwhile"))
					}
					text, err := n.Output("cat", "/proc/net/nf_conntrack")
					if err == nil && strings.Contains(text, fmt.Sprintf("sport=%d dport=%d ", a.Port(), b.Port())) {
						err = errors.New("it is there")
					}
					return err
				})
				must(t, n.SetSysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "432000"))
				must(t, k.say(strings.Repeat("x", 100_000)))
			}
			s.fast(k, n)
		}
	})
}

func readLine(k *talk, limit time.Duration) (string, error) {
	if err := k.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	return k.lines.ReadString('\n')
}

func readAll(k *talk) (string, error) {
	if err := k.SetReadDeadline(time.Now().Add(pace.Far())); err != nil {
		return "", err
	}
	all, err := io.ReadAll(k.lines)
	return string(all), err
}
