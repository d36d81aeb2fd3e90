package policy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// proving is a node between the namespace from which all pods send and the one in which
// all receive: which pods there are is for the tables alone to say.
type proving struct {
	t                  testing.TB
	source, node, sink *netlab.Node
	received           *os.File
	number             int
}

// The pods' networks, and two addresses that no pod has.
var (
	podNetworks = []string{"10.0.0.0/24", "fd00::/64"}
	herald      = packet{netip.MustParseAddrPort("10.0.0.250:1"), netip.MustParseAddrPort("10.0.0.251:1"), UDP}
)

func newProving(t testing.TB) *proving {
	lab := netlab.Start(t)
	in, out := lab.Segment("in"), lab.Segment("out")
	r := &proving{
		t: t, source: lab.Node("source", in.Port("192.0.2.2/24", "fd01::2/64")),
		node: lab.Router("node", in.Port("192.0.2.1/24", "fd01::1/64"), out.Port("198.51.100.1/24", "fd02::1/64")),
		sink: lab.Node("sink", out.Port("198.51.100.2/24", "fd02::2/64")),
	}
	for i, network := range podNetworks {
		r.must(r.source.AddRoute(network, []string{"192.0.2.1", "fd01::1"}[i]))
		r.must(r.node.AddRoute(network, []string{"198.51.100.2", "fd02::2"}[i]))
	}
	for _, link := range []string{"all", "eth0", "eth1"} {
		r.must(r.node.SetSysctl("net/ipv4/conf/"+link+"/rp_filter", "0"))
	}
	r.must(r.sink.Do(func() error {
		every := int(unix.ETH_P_ALL)<<8 | int(unix.ETH_P_ALL)>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, every&0xffff)
		if err != nil {
			return err
		}
		r.received = os.NewFile(uintptr(fd), "what the sink receives")
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	}))
	t.Cleanup(func() { r.received.Close() })
	return r
}

func (r *proving) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// passing says which packets get through. Refused is what has not come when a packet has
// come that was sent after it, by the same processor: it has overtaken nothing, since
// each processor has one queue. What is expected and does not come is sent again a few
// times, because there are other reasons to lose a packet.
func (r *proving) passing(all []packet, expected func(i int) bool) []bool {
	r.t.Helper()
	passed := make([]bool, len(all))
	for round := range 5 {
		first := r.number + 1
		var sent []int
		for i := range all {
			if round == 0 || expected(i) && !passed[i] {
				sent = append(sent, i)
			}
		}
		if len(sent) == 0 {
			break
		}
		var packets []packet
		for _, i := range sent {
			packets = append(packets, all[i])
		}
		r.send(packets)
		for _, n := range r.until(first + len(sent)) {
			if n >= first {
				passed[sent[n-first]] = true
			}
		}
	}
	return passed
}

// send sends a packet each, with the next numbers, and a herald after them.
func (r *proving) send(all []packet) {
	r.t.Helper()
	r.must(r.source.Do(func() error {
		if err := netlab.OnOneProcessor(); err != nil { // this thread, which ends with Do
			return err
		}
		for _, p := range append(slices.Clone(all), herald) {
			r.number++
			if err := sendAs(p, r.number); err != nil {
				return err
			}
		}
		return nil
	}))
}

// until returns the numbers that have come before a herald with this number or a later
// one.
func (r *proving) until(number int) (all []int) {
	r.t.Helper()
	buffer := make([]byte, 2048)
	_, err := pace.Await(pace.Far(), func() error {
		r.must(r.received.SetReadDeadline(time.Now().Add(time.Second)))
		for {
			n, err := r.received.Read(buffer)
			if err != nil {
				r.send(nil) // the herald may be lost
				return err
			}
			i := bytes.LastIndex(buffer[:n], []byte("probe "))
			if i < 0 {
				continue
			}
			came, err := strconv.Atoi(string(buffer[i+len("probe ") : n]))
			if err != nil {
				return err
			}
			if came >= number {
				return nil
			}
			all = append(all, came)
		}
	})
	r.must(err)
	return all
}

// sendAs sends a datagram that has a number, from an address that is not the
// namespace's own.
func sendAs(p packet, number int) error {
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(p.source), Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
			if p.source.Addr().Is6() {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
			}
			err = unix.SetsockoptInt(int(fd), level, option, 1)
		}), err)
	}}
	socket, err := dialer.Dial("udp", p.destination.String())
	if err != nil {
		return err
	}
	defer socket.Close()
	_, err = fmt.Fprintf(socket, "probe %d", number)
	return err
}
