package fastpath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// received is a datagram with what of its header matters.
type received struct {
	text     string
	from     netip.AddrPort
	ttl, tos int
}

// mailbox is a UDP socket that keeps what comes, and answers it with itself.
type mailbox struct {
	*net.UDPConn
	got chan received
}

func options(ipv6 bool) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			set := func(level, option, value int) {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), level, option, value))
			}
			set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if ipv6 {
				set(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
				set(unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
			} else {
				set(unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
				set(unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
			}
		}), err)
	}
}

func receive(t *testing.T, at *netlab.Namespace, address netip.AddrPort) *mailbox {
	t.Helper()
	m := &mailbox{got: make(chan received, 10_000)}
	must(t, at.Do(func() error {
		c, err := (&net.ListenConfig{Control: options(address.Addr().Is6())}).ListenPacket(t.Context(), "udp", address.String())
		if err == nil {
			m.UDPConn = c.(*net.UDPConn)
		}
		return err
	}))
	t.Cleanup(func() { m.Close() })
	go func() {
		buffer, control := make([]byte, 64<<10), make([]byte, 256)
		for {
			n, c, _, from, err := m.ReadMsgUDPAddrPort(buffer, control)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			r := received{text: string(buffer[:n]), from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
			messages, _ := syscall.ParseSocketControlMessage(control[:c])
			for _, one := range messages {
				switch int(one.Header.Type) {
				case unix.IP_TTL, unix.IPV6_HOPLIMIT:
					r.ttl = int(binary.NativeEndian.Uint32(one.Data))
				case unix.IP_TOS:
					r.tos = int(one.Data[0])
				case unix.IPV6_TCLASS:
					r.tos = int(binary.NativeEndian.Uint32(one.Data))
				}
			}
			if !strings.HasPrefix(r.text, "quiet") {
				_, _ = m.WriteToUDPAddrPort(buffer[:n], from)
			}
			select {
			case m.got <- r:
			default:
			}
		}
	}()
	return m
}

// until returns all that has come when a text has.
func (m *mailbox) until(t *testing.T, text string) (all []received) {
	t.Helper()
	for deadline := time.After(pace.Far()); ; {
		select {
		case r := <-m.got:
			all = append(all, r)
			if r.text == text {
				return all
			}
		case <-deadline:
			t.Fatalf("%q has not come, but %v", text, all)
		}
	}
}

// sender is a connected UDP socket.
type sender struct {
	*net.UDPConn
	number int
}

func send(t *testing.T, from *netlab.Namespace, source, to netip.AddrPort) *sender {
	t.Helper()
	s := &sender{}
	must(t, from.Do(func() error {
		d := net.Dialer{Control: options(to.Addr().Is6())}
		if source.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(source)
		}
		c, err := d.Dial("udp", to.String())
		if err == nil {
			s.UDPConn = c.(*net.UDPConn)
		}
		return err
	}))
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *sender) ends() (a, b netip.AddrPort) {
	ap := func(a net.Addr) netip.AddrPort {
		p := a.(*net.UDPAddr).AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return ap(s.LocalAddr()), ap(s.RemoteAddr())
}

// asks sends a text until it comes back.
func (s *sender) asks(text string) error {
	buffer := make([]byte, 64<<10)
	_, err := pace.Await(pace.Far(), func() error {
		if _, err := s.Write([]byte(text)); err != nil {
			return err
		}
		if err := s.SetReadDeadline(time.Now().Add(pace.Of(200 * time.Millisecond))); err != nil {
			return err
		}
		n, err := s.Read(buffer)
		if err == nil && string(buffer[:n]) != text {
			err = fmt.Errorf("another answer: %.20q", buffer[:n])
		}
		return err
	})
	return err
}

// fastDatagrams asks until both directions take the fast path.
func (s *site) fastDatagrams(k *sender, nodes ...*cluster.Node) {
	s.t.Helper()
	if s.kernel() {
		for range 10 {
			k.number++
			must(s.t, k.asks(fmt.Sprintf("question %10d, which is as long as any other", k.number)))
		}
		return
	}
	a, b := k.ends()
	for _, n := range nodes {
		before := s.takes(n, a, b)
		s.Eventually(fmt.Sprintf("%s and %s on the fast path of %s", a, b, n.Name), func() error {
			k.number++
			must(s.t, k.asks(fmt.Sprintf("question %10d, which is as long as any other", k.number)))
			f, ok, err := flow(n, a, b)
			if err != nil || !ok || !f.Active || f.There.Packets+f.Back.Packets < before+4 {
				return fmt.Errorf("%+v, %v", f, err)
			}
			return nil
		})
	}
}

// datagrams has datagrams go from one pod to another's mailbox by the fast path.
func (s *site) datagrams(from, to *cluster.Pod, ipv6 bool) (at netip.AddrPort, box *mailbox, k *sender) {
	s.t.Helper()
	at = netip.AddrPortFrom(to.Address(ipv6), 5000)
	box = receive(s.t, to.Namespace, at)
	k = send(s.t, from.Namespace, netip.AddrPort{}, at)
	s.fastDatagrams(k, s.Nodes...)
	return at, box, k
}

func setHops(c *net.UDPConn, ipv6 bool, hops, tos int) error {
	return onSocket(c, func(fd int) error {
		if ipv6 {
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos))
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, hops), unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos))
	})
}

// Datagrams are as they would be without: their TTL is one less for each node, what is at
// its end goes no further, DSCP and ECN stay, and what is too large is cut by who may.
func TestHeadersOfDatagrams(t *testing.T) {
	for mode, nodes := range map[string]int{"one node": 1, "direct": 2, "vxlan": 2} {
		t.Run(mode, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				fabric := mode
				if nodes == 1 {
					fabric = "direct"
				}
				s := newSite(t, cluster.Dual, nodes, "--fabric", fabric, datapath)
				web, client := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "client")
				for _, ipv6 := range []bool{false, true} {
					_, box, k := s.datagrams(client, web, ipv6)
					a, b := k.ends()
					before := s.takes(s.Nodes[0], a, b)
					const tos = 0xb9 // EF, ECN 1
					must(t, setHops(k.UDPConn, ipv6, 50, tos))
					// Any single one may be one that is decided anew.
					s.Eventually("marked ones on the fast path", func() error {
						must(t, k.asks("marked"))
						all := box.until(t, "marked")
						if r := all[len(all)-1]; r.ttl != 50-nodes || r.tos != tos {
							t.Errorf("TTL %d, TOS %#x arrived of 50 and %#x", r.ttl, r.tos, tos)
						}
						if !s.kernel() && s.takes(s.Nodes[0], a, b) == before {
							return errors.New("no datagram has taken it")
						}
						return nil
					})
					// One that ends on the way does so, and who sent it is told. Those behind it pass.
					for hops := 1; hops <= nodes; hops++ {
						must(t, setHops(k.UDPConn, ipv6, hops, 0))
						_, err := k.Write([]byte("quiet, ends"))
						must(t, err)
					}
					must(t, setHops(k.UDPConn, ipv6, nodes+1, 0))
					must(t, k.asks("passes just so"))
					all := box.until(t, "passes just so")
					for _, r := range all {
						if r.text == "quiet, ends" {
							t.Error("a datagram came though its TTL was over on the way")
						}
					}
					if r := all[len(all)-1]; r.ttl != 1 {
						t.Errorf("TTL %d arrived", r.ttl)
					}
					// In fragments.
					must(t, setHops(k.UDPConn, ipv6, 64, 0))
					for _, size := range []int{10, 1472, 1473, 4000, 60000, 1400} {
						must(t, k.asks(strings.Repeat("y", size)))
					}
					s.fastDatagrams(k, s.Nodes...)
				}
			})
		})
	}
}

// With an address that is not its own a pod neither sends into a flow of another pod nor
// ends one.
func TestSpoofedPacketsOfARememberedFlow(t *testing.T) {
	for mode, nodes := range map[string]int{"one node": 1, "direct": 2, "vxlan": 2} {
		t.Run(mode, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				fabric := mode
				if nodes == 1 {
					fabric = "direct"
				}
				s := newSite(t, cluster.Dual, nodes, "--fabric", fabric, datapath)
				web, client, thief := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "client"), s.pod(s.Nodes[0], "thief")
				web.Namespace.ServeLines(t, 80)
				for _, ipv6 := range []bool{false, true} {
					at, box, k := s.datagrams(client, web, ipv6)
					source, _ := k.ends()
					bits := "/32"
					if ipv6 {
						bits = "/128"
					}
					must(t, thief.AddAddress("eth0", source.Addr().String()+bits))
					stolen := send(t, thief.Namespace, source, at)
					for range 10 {
						_, err := stolen.Write([]byte("quiet, stolen"))
						must(t, err)
					}
					honest := send(t, thief.Namespace, netip.AddrPortFrom(thief.Address(ipv6), 0), at)
					must(t, honest.asks("honest"))
					must(t, k.asks("own"))
					for _, r := range append(box.until(t, "honest"), box.until(t, "own")...) {
						if r.text == "quiet, stolen" {
							t.Error("a datagram of the thief's came as if it were the client's")
							break
						}
					}
					s.fastDatagrams(k, s.Nodes...)

					// Ends that somebody else says.
					c := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
					s.fast(c, s.Nodes...)
					from, to := c.ends()
					stolenAt := time.Now()
					for _, flags := range []byte{0x04, 0x11, 0x02} { // RST, FIN+ACK, SYN
						must(t, sendTCP(thief.Namespace, from, to, flags))
					}
					must(t, honest.asks("behind it"))
					// It may be decided anew, as anything may at any time. But one that closes never
					// takes the fast path again, and one that has begun is learned from the beginning.
					s.fast(c, s.Nodes...)
					f, _, err := flow(s.Nodes[0], from, to)
					must(t, err)
					if !s.kernel() && f.Since.After(stolenAt) {
						t.Error("somebody else's SYN has begun a connection anew")
					}
				}
			})
		})
	}
}

// sendTCP sends a segment without content by a raw socket.
func sendTCP(from *netlab.Namespace, source, to netip.AddrPort, flags byte) error {
	segment := binary.BigEndian.AppendUint16(nil, source.Port())
	segment = binary.BigEndian.AppendUint16(segment, to.Port())
	segment = append(segment, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, flags, 255, 255, 0, 0, 0, 0)
	return from.Do(func() error {
		family := unix.AF_INET
		var own, other unix.Sockaddr
		if source.Addr().Is4() {
			own, other = &unix.SockaddrInet4{Addr: source.Addr().As4()}, &unix.SockaddrInet4{Addr: to.Addr().As4()}
		} else {
			family = unix.AF_INET6
			own, other = &unix.SockaddrInet6{Addr: source.Addr().As16()}, &unix.SockaddrInet6{Addr: to.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, own); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("sendto", unix.Sendto(fd, segment, 0, other))
	})
}
