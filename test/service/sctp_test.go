package service_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/service"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// TestSCTP: associations to a ClusterIP, a NodePort and a load balancer's address
// reach the endpoints, as TCP's connections do.
func TestSCTP(t *testing.T) {
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP); err != nil {
		t.Skipf("this kernel has no SCTP: %v", err)
	} else {
		unix.Close(fd)
	}
	for _, mode := range []string{"direct", "vxlan"} {
		for _, ipv6 := range []bool{false, true} {
			t.Run(describe(mode, ipv6), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, mode, ipv6)
				v := s.service("a1", "b1")
				v.Ports = append(v.Ports, service.Port{Name: "sctp", Protocol: service.SCTP, Port: 80, NodePort: nodePort})
				v.Slices[0].Ports = append(v.Slices[0].Ports, service.SlicePort{Name: "sctp", Protocol: service.SCTP, Port: 8080})
				for _, name := range []string{"a1", "b1"} {
					serveSCTP(t, s.pods[name].Namespace, s.servers[name], at(s.pods[name].Address(ipv6), 8080))
				}
				s.apply(v)
				s.expectSCTP(s.pod("a2"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
				s.expectSCTP(s.node("n3"), at(s.clusterIP(), 80), map[string]string{"a1": "own", "b1": "own"})
				s.expectSCTP(s.outside(), at(s.Node("n1").Addresses[0], nodePort), map[string]string{"a1": "own", "b1": "n1"})
				s.expectSCTP(s.outside(), at(s.balancerIP(), 80), map[string]string{"a1": "own", "b1": "n1"})
			})
		}
	}
}

// expectSCTP is expect for SCTP, with fewer tries: an association's end takes a while.
func (s *site) expectSCTP(from place, to netip.AddrPort, want map[string]string) {
	s.t.Helper()
	got := map[string]string{}
	for range tries {
		a, err := askSCTP(from.Namespace, to)
		if err != nil {
			s.t.Errorf("%s to %s, sctp: %v", from.name, to, err)
			return
		}
		got[a.server] = s.sourceName(from, a.source)
		if len(got) == len(want) {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s to %s, sctp: reached %v, want %v", from.name, to, got, want)
	}
}

// serveSCTP has a server answer SCTP, too. An association looks like a
// connection of TCP to whoever reads and writes.
func serveSCTP(t *testing.T, ns *netlab.Namespace, s *server, at netip.AddrPort) {
	t.Helper()
	var listener net.Listener
	must(t, ns.Do(func() error {
		file, err := socketSCTP(at)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := unix.Bind(int(file.Fd()), sockaddr(at)); err != nil {
			return fmt.Errorf("binding to %s: %w", at, err)
		}
		if err := unix.Listen(int(file.Fd()), 16); err != nil {
			return fmt.Errorf("listening at %s: %w", at, err)
		}
		listener, err = net.FileListener(file)
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	netlab.Accept(listener, s.connection)
}

// askSCTP associates, asks once and ends.
func askSCTP(ns *netlab.Namespace, to netip.AddrPort) (a answer, err error) {
	err = ns.Do(func() error {
		file, err := socketSCTP(to)
		if err != nil {
			return err
		}
		defer file.Close()
		patience := unix.NsecToTimeval(timeout.Nanoseconds())
		if err := unix.SetsockoptTimeval(int(file.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
			return err
		}
		// It ends at once, so that a test does not wait for what is on its way.
		if err := unix.SetsockoptLinger(int(file.Fd()), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		begin := time.Now()
		err = unix.Connect(int(file.Fd()), sockaddr(to))
		// A signal, as the runtime sends them, interrupts the wait and not the association.
		for (errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY)) && time.Since(begin) < timeout {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLOUT}}, 100)
			err = unix.Connect(int(file.Fd()), sockaddr(to))
		}
		if err != nil && !errors.Is(err, unix.EISCONN) {
			return fmt.Errorf("associating with %s, after %s: %w", to, time.Since(begin).Round(time.Millisecond), err)
		}
		c, err := net.FileConn(file)
		if err != nil {
			return err
		}
		defer c.Close()
		a, err = (&conversation{c, bufio.NewReader(c)}).ask(timeout)
		return err
	})
	return a, err
}

// socketSCTP makes a socket for one association with an address of a family.
func socketSCTP(of netip.AddrPort) (*os.File, error) {
	family := unix.AF_INET
	if of.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, fmt.Errorf("making a socket of SCTP: %w", err)
	}
	return os.NewFile(uintptr(fd), "sctp"), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
