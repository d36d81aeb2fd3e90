package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// What is sent one way and never answered arrives, and is not remembered until there is
// an answer.
func TestDatagramsOneWay(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 2, "--fabric", "direct", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		for _, ipv6 := range []bool{false, true} {
			at := netip.AddrPortFrom(web.Address(ipv6), 5000)
			box := receive(t, web.Namespace, at)
			k := send(t, client.Namespace, netip.AddrPort{}, at)
			a, b := k.ends()
			arrive := func(what string, times int) {
				t.Helper()
				text := ""
				for i := range times {
					text = fmt.Sprintf("quiet, %s %d", what, i)
					_, err := k.Write([]byte(text))
					must(t, err)
				}
				if got := count(box.until(t, text), "quiet, "+what); got != times {
					t.Errorf("%d of %d datagrams have come, %s", got, times, what)
				}
			}
			const times = 50
			arrive("unanswered", times)
			for _, n := range s.Nodes {
				if packets := s.takes(n, a, b); packets > 0 {
					t.Errorf("%d packets that nobody answers take the fast path of %s", packets, n.Name)
				}
			}
			// Where all is decided anew between the answer and what follows, it goes by the stack.
			s.Eventually("one direction that goes on to take the fast path", func() error {
				s.fastDatagrams(k, s.Nodes...)
				before := s.takes(s.Nodes[0], a, b)
				arrive("answered once", times)
				if packets := s.takes(s.Nodes[0], a, b); !s.kernel() && packets == before {
					return errors.New("no datagram has taken it")
				}
				return nil
			})
		}
	})
}

func count(all []received, beginning string) (n int) {
	for _, r := range all {
		if len(r.text) >= len(beginning) && r.text[:len(beginning)] == beginning {
			n++
		}
	}
	return n
}

// extra has the kernel send IP options, or extension headers of IPv6, with what a socket
// sends; none takes them away.
func extra(c *net.UDPConn, level, option int, header []byte) error {
	return onSocket(c, func(fd int) error { return unix.SetsockoptString(fd, level, option, string(header)) })
}

// Packets of a remembered flow with options or extension headers are the stack's; those
// after them take the fast path again.
func TestOptionsAndExtensionHeaders(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := newSite(t, cluster.Dual, nodes, "--fabric", "direct", datapath)
				web, client := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "client")
				padding := []byte{0, 0, 1, 4, 0, 0, 0, 0} // one option, which is skipped
				for _, c := range []struct {
					what          string
					ipv6          bool
					level, option int
					header        []byte
				}{
					{"options", false, unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0}},
					{"hop-by-hop options", true, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding},
					{"destination options", true, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding},
				} {
					_, box, k := s.datagrams(client, web, c.ipv6)
					a, b := k.ends()
					before := s.takes(s.Nodes[0], a, b)
					must(t, extra(k.UDPConn, c.level, c.option, c.header))
					const times = 20
					text := ""
					for i := range times {
						text = fmt.Sprintf("quiet, with %s %d", c.what, i)
						_, err := k.Write([]byte(text))
						must(t, err)
					}
					if got := count(box.until(t, text), "quiet, with "+c.what); got != times {
						t.Errorf("%d of %d datagrams with %s have come", got, times, c.what)
					}
					if now := s.takes(s.Nodes[0], a, b); now != before {
						t.Errorf("%d datagrams with %s have taken the fast path", now-before, c.what)
					}
					must(t, extra(k.UDPConn, c.level, c.option, nil))
					s.fastDatagrams(k, s.Nodes...)
					must(t, box.Close())
				}
			})
		})
	}
}

// Who sends to a port that nobody has any more is told so, though the flow is remembered.
func TestUnreachablePortOfARememberedFlow(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := newSite(t, cluster.Dual, nodes, "--fabric", "direct", datapath)
				web, client := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "client")
				for _, ipv6 := range []bool{false, true} {
					at, box, k := s.datagrams(client, web, ipv6)
					must(t, box.Close())
					// The pod's kernel does not send as many errors as it gets packets.
					_, err := pace.Await(pace.Far(), func() error {
						if _, err := k.Write([]byte("anybody?")); errors.Is(err, unix.ECONNREFUSED) {
							return nil
						}
						return errors.New("the sender is not told")
					})
					must(t, err)
					receive(t, web.Namespace, at)
					_, err = pace.Await(pace.Far(), func() error {
						_, err := k.Write([]byte("quiet, again"))
						return err
					})
					must(t, err)
					s.fastDatagrams(k, s.Nodes...)
				}
			})
		})
	}
}
