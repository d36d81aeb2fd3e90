package fabric_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// timeout is for one answer that has to come.
var timeout = pace.Far()

// unanswered is how long no answer has to come. A machine that is late may miss an
// answer that should not be there, and cannot make one up.
const unanswered = 150 * time.Millisecond

// place is where packets come from and go to: a pod or a node.
type place struct {
	*netlab.Namespace
	name  string
	node  *cluster.Node
	pod   *cluster.Pod // nil for a node
	echos [2]netip.AddrPort
}

func (p *place) String() string { return p.name }

// address is the place's own; of a node the one that others know it by.
func (p *place) address(ipv6 bool) netip.Addr {
	if p.pod != nil {
		return p.pod.Address(ipv6)
	}
	for _, a := range p.node.Addresses {
		if a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

// echo has the place tell where packets come from, in each family it has.
func (p *place) echo(t *testing.T) {
	t.Helper()
	for f, ipv6 := range []bool{false, true} {
		if a := p.address(ipv6); a.IsValid() {
			at, stop, err := p.Echo(netip.AddrPortFrom(a, 0))
			must(t, err)
			t.Cleanup(stop)
			p.echos[f] = at
		}
	}
}

func family(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

func familyName(ipv6 bool) string { return [...]string{"IPv4", "IPv6"}[family(ipv6)] }

// placePod makes a pod on a node, which tells where packets come from.
func placePod(t *testing.T, n *cluster.Node, name string) *place {
	t.Helper()
	pod := n.Pod(name)
	p := &place{Namespace: pod.Namespace, name: "pod " + name + " of " + n.Name, node: n, pod: pod}
	p.echo(t)
	return p
}

// placeNode has a node tell where packets come from.
func placeNode(t *testing.T, n *cluster.Node) *place {
	t.Helper()
	p := &place{Namespace: n.Namespace, name: "node " + n.Name, node: n}
	p.echo(t)
	return p
}

// expect asks another place, which has to see the source.
func (p *place) expect(t *testing.T, to *place, ipv6 bool, source netip.Addr) {
	t.Helper()
	seen, _, err := p.Ask(netip.Addr{}, to.echos[family(ipv6)], timeout)
	switch {
	case err != nil:
		t.Errorf("%s to %s, %s: %v", p, to, familyName(ipv6), err)
	case seen != source:
		t.Errorf("%s to %s, %s: the receiver saw %s and not %s", p, to, familyName(ipv6), seen, source)
	}
}

// reaches asks another place, which has to see the asking place's own address.
func (p *place) reaches(t *testing.T, to *place, ipv6 bool) {
	t.Helper()
	p.expect(t, to, ipv6, p.address(ipv6))
}

// cannotReach asks another place, which must not answer.
func (p *place) cannotReach(t *testing.T, to *place, ipv6 bool) {
	t.Helper()
	if seen, _, err := p.Ask(netip.Addr{}, to.echos[family(ipv6)], unanswered); err == nil {
		t.Errorf("%s reaches %s, %s, and is seen as %s", p, to, familyName(ipv6), seen)
	}
}

// awaitReach asks until another place answers, and returns how long that took. Each
// time it has a socket of its own, as the way may be another one, and more patience, as
// the answer may be on its way.
func (p *place) awaitReach(t *testing.T, to *place, ipv6 bool) time.Duration {
	t.Helper()
	const first, most = 50 * time.Millisecond, 5 * time.Second
	patience := first
	return await(t, fmt.Sprintf("%s to reach %s, %s", p, to, familyName(ipv6)), func() error {
		seen, _, err := p.Ask(netip.Addr{}, to.echos[family(ipv6)], pace.Of(patience))
		patience = min(patience*3/2, most)
		if err == nil && seen != p.address(ipv6) {
			err = fmt.Errorf("the receiver saw %s", seen)
		}
		return err
	})
}

// datagram sends one UDP packet of size bytes, headers included, that must not
// be fragmented, and waits for the answer.
func (p *place) datagram(to netip.AddrPort, size int, timeout time.Duration) error {
	level, option, headers := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, 28
	if to.Addr().Is6() {
		level, option, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, 48
	}
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), level, option, unix.IP_PMTUDISC_DO)
		}), err)
	}}
	return p.Do(func() error {
		socket, err := dialer.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer socket.Close()
		socket.SetDeadline(time.Now().Add(timeout))
		if _, err := socket.Write(make([]byte, size-headers)); err != nil {
			return err
		}
		_, err = socket.Read(make([]byte, 64))
		return err
	})
}
