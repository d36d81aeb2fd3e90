package announce

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a link that answers on one machine, and another machine on the segment.
type lab struct {
	*link
	valid  atomic.Bool
	asker  *netlab.Node
	counts counts
}

func newLab(t *testing.T) *lab {
	t.Helper()
	all := netlab.Start(t)
	lan := all.Segment("lan")
	answerer := all.Node("answerer", lan.Port("192.0.2.1/24", "fd00::1/64"))
	l := &lab{asker: all.Node("asker", lan.Port("192.0.2.2/24", "fd00::2/64"))}
	l.valid.Store(true)
	var said bytes.Buffer
	// Its sockets are of the namespace that they are made in; the goroutines may be anywhere.
	must(t, answerer.Do(func() (err error) {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if l.link, err = openLink(*i, newPact("answerer", l.valid.Load), func(bool, bool) {}, &l.counts, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
			return err
		}
		return l.link.listenNDP()
	}))
	t.Cleanup(func() {
		if l.link.close(); said.Len() > 0 {
			t.Errorf("a link that was closed has said:\n%s", &said)
		}
	})
	return l
}

// own has the link answer for these.
func (l *lab) own(t *testing.T, texts ...string) {
	t.Helper()
	all := map[netip.Addr]ownership{}
	for _, text := range texts {
		all[netip.MustParseAddr(text)] = ownership{}
	}
	// Groups are joined at an interface of the caller's namespace: the asker's, which has
	// one of the same number. The segment here does not go by groups.
	must(t, l.asker.Do(func() error { _, err := l.set(all); return err }))
	for _, six := range []string{"ipv4", "ipv6"} { // so that it is known soon that there is none
		must(t, l.asker.SetSysctl("net/"+six+"/neigh/eth0/retrans_time_ms", "300"))
	}
}

// state is what the asker's kernel knows of an address.
func (l *lab) state(t *testing.T, ip string) string {
	t.Helper()
	out, err := l.asker.Output("ip", "neigh", "show", ip)
	must(t, err)
	return out
}

// resolve has the asker's kernel look for an address until it knows whether there is one.
func (l *lab) resolve(t *testing.T, ip string) (found bool) {
	t.Helper()
	must(t, l.asker.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(ip), 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		// Once: the next would begin anew where none was found.
		_, _ = c.Write([]byte("x"))
		_, err = pace.Await(pace.Far(), func() error {
			switch state := l.state(t, ip); {
			case strings.Contains(state, "REACHABLE"), strings.Contains(state, "STALE"), strings.Contains(state, "DELAY"):
				if !strings.Contains(state, l.mac.String()) {
					return fmt.Errorf("%s", state)
				}
				found = true
				return nil
			case strings.Contains(state, "FAILED"):
				return nil
			default:
				return fmt.Errorf("%s", state)
			}
		})
		return err
	}))
	return found
}

// A neighbour's kernel finds the addresses that the link has, and no others; and none
// when the node may not answer.
func TestKernelsFindAddresses(t *testing.T) {
	l := newLab(t)
	l.own(t, "192.0.2.100", "fd00::100", "fd00::ffff:1:2:3")
	for _, ip := range []string{"192.0.2.100", "fd00::100", "fd00::ffff:1:2:3"} {
		if !l.resolve(t, ip) {
			t.Errorf("%s was not found", ip)
		}
	}
	for _, ip := range []string{"192.0.2.101", "fd00::101"} {
		if l.resolve(t, ip) {
			t.Errorf("%s was found", ip)
		}
	}
	if l.counts.arp.Load() == 0 || l.counts.ndp.Load() < 2 {
		t.Errorf("answers: %d, %d", l.counts.arp.Load(), l.counts.ndp.Load())
	}
	_, err := l.asker.Output("ip", "neigh", "flush", "all")
	must(t, err)
	l.valid.Store(false)
	for _, ip := range []string{"192.0.2.100", "fd00::100"} {
		if l.resolve(t, ip) {
			t.Errorf("%s was found, and the node may not answer", ip)
		}
	}
}

// Who wants to take an address learns that it is taken, by what the kernel itself asks
// before (RFC 4862).
func TestDuplicateIsSeen(t *testing.T) {
	l := newLab(t)
	l.own(t, "fd00::100")
	must(t, l.asker.SetSysctl("net/ipv6/conf/eth0/accept_dad", "1"))
	_, err := l.asker.Output("ip", "addr", "add", "fd00::100/64", "dev", "eth0")
	must(t, err)
	_, err = pace.Await(pace.Far(), func() error {
		out, err := l.asker.Output("ip", "addr", "show", "dev", "eth0")
		if err == nil && !strings.Contains(out, "dadfailed") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	must(t, err)
}

// A neighbour that knows another MAC address for an address takes the one announced.
func TestAnnouncementsAreTaken(t *testing.T) {
	l := newLab(t)
	l.own(t, "192.0.2.100", "fd00::100")
	for _, ip := range []string{"192.0.2.100", "fd00::100"} {
		_, err := l.asker.Output("ip", "neigh", "add", ip, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
		must(t, err)
		_, err = pace.Await(pace.Far(), func() error {
			l.announce(netip.MustParseAddr(ip))
			if state := l.state(t, ip); !strings.Contains(state, l.mac.String()) {
				return fmt.Errorf("%s", state)
			}
			return nil
		})
		must(t, err)
	}
}

// Somebody who says to have an address that is answered for here is told of, unless they
// have only just had it.
func TestConflict(t *testing.T) {
	l := newLab(t)
	l.own(t, "192.0.2.100")
	claim := func() {
		_, err := l.asker.Output("ip", "addr", "replace", "192.0.2.100/32", "dev", "eth0")
		must(t, err)
		// Its own question has the address as its source.
		_ = l.asker.Do(func() error {
			c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 100)}}).Dial("udp", "192.0.2.1:9")
			if err == nil {
				_, err = c.Write([]byte("x"))
				c.Close()
			}
			return err
		})
		_, err = l.asker.Output("ip", "neigh", "flush", "all")
		must(t, err)
	}
	_, err := pace.Await(pace.Far(), func() error {
		l.mu.Lock()
		l.owned[netip.MustParseAddr("192.0.2.100")] = ownership{since: time.Now().Add(-2 * settled)}
		l.mu.Unlock()
		claim()
		if all := l.conflicts(); len(all) != 1 || all[0].IP.String() != "192.0.2.100" || all[0].MAC == l.mac.String() {
			return fmt.Errorf("conflicts are %v", all)
		}
		return nil
	})
	must(t, err)
}

// What is no question, is cut short, or has passed a router is not answered.
func TestFrames(t *testing.T) {
	own, asker := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ip, from := netip.MustParseAddr("fd00::100"), netip.MustParseAddr("fd00::2")
	ns := advertise(0, asker, own, from, solicitedNode(ip), ip)
	icmp := ns[atICMP6:]
	icmp[0], icmp[24], icmp[2], icmp[3] = solicitation, 1, 0, 0
	sum := checksum(from, solicitedNode(ip), icmp)
	icmp[2], icmp[3] = byte(sum>>8), byte(sum)
	q, good := readNDP(ns)
	if !good || q.target != ip || q.asker != from || q.from.String() != asker.String() {
		t.Fatalf("%v %t", q, good)
	}
	for i := range ns {
		if _, good := readNDP(ns[:i]); good {
			t.Errorf("%d bytes of it are read", i)
		}
	}
	for offset, what := range map[int]string{atIPv6 + 7: "hop limit", atICMP6 + 9: "checksum", atIPv6 + 6: "next header"} {
		bad := append([]byte(nil), ns...)
		bad[offset]--
		if _, good := readNDP(bad); good {
			t.Errorf("with another %s it is read", what)
		}
	}
	request := arp(arpRequest, asker, broadcast, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.100"), make(net.HardwareAddr, 6))
	a, asks, good := readARP(request)
	if !asks || !good || a.target.String() != "192.0.2.100" || a.asker.String() != "192.0.2.2" {
		t.Errorf("%v %t %t", a, asks, good)
	}
	for i := range request {
		if _, _, good := readARP(request[:i]); good {
			t.Errorf("%d bytes of it are read", i)
		}
	}
	for _, frame := range announceARP(own, netip.MustParseAddr("192.0.2.100")) {
		if _, asks, good := readARP(frame); asks || !good {
			t.Error("an announcement is taken for a question")
		}
	}
}
