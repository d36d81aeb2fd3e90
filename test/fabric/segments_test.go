package fabric_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

const narrowMTU = 1400

// narrow is a way to the outside with a smaller MTU in its middle, of which the
// machines at both ends know nothing:
//
//	node n1 ── 1500 ── near ── 1400 ── far ── 1500 ── world
type narrow struct {
	near, far *netlab.Node
	world     *place
}

func newNarrow(t *testing.T, s *site) narrow {
	t.Helper()
	tunnel, outside := s.Lab.SegmentMTU("tunnel", narrowMTU), s.Lab.Segment("outside")
	w := narrow{
		near: s.Lab.Router("near", s.segments[0].Port("172.30.0.250/24", "fd00:30::250/64"), tunnel.Port("198.18.0.1/24", "fd12::1/64")),
		far:  s.Lab.Router("far", tunnel.Port("198.18.0.2/24", "fd12::2/64"), outside.Port("203.0.113.1/24", "2001:db8::1/64")),
	}
	node := s.Lab.Node("world", outside.Port("203.0.113.9/24", "2001:db8::9/64"))
	for _, r := range []struct {
		in      *netlab.Node
		to, via string
	}{
		{node, "0.0.0.0/0", "203.0.113.1"}, {node, "::/0", "2001:db8::1"},
		{w.far, "0.0.0.0/0", "198.18.0.1"}, {w.far, "::/0", "fd12::1"},
		{w.near, "203.0.113.0/24", "198.18.0.2"}, {w.near, "2001:db8::/64", "fd12::2"},
		{w.near, s.Nodes[0].PodCIDRs[0].String(), s.Nodes[0].Addresses[0].String()},
		{w.near, s.Nodes[0].PodCIDRs[1].String(), s.Nodes[0].Addresses[1].String()},
	} {
		must(t, r.in.AddRoute(r.to, r.via))
	}
	w.world = &place{Namespace: node.Namespace, name: "world", node: &cluster.Node{
		Node: node, Name: "world", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")},
	}}
	w.world.echo(t)
	return w
}

// silence has the routers say nothing of packets that are too large.
func (w narrow) silence(t *testing.T) {
	t.Helper()
	for _, router := range []*netlab.Node{w.near, w.far} {
		get(router.Output("nft", `add table inet silent; add chain inet silent output { type filter hook output priority 0; };
			add rule inet silent output icmp type destination-unreachable counter drop;
			add rule inet silent output icmpv6 type packet-too-big counter drop`))(t)
	}
}

// unsaid counts the packets that were too large, of which a silent router said
// nothing.
func (w narrow) unsaid(t *testing.T) (n int) {
	t.Helper()
	for _, router := range []*netlab.Node{w.near, w.far} {
		for _, found := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(get(router.Output("nft", "list chain inet silent output"))(t), -1) {
			packets, err := strconv.Atoi(found[1])
			must(t, err)
			n += packets
		}
	}
	return n
}

// exchange opens a connection and sends a good deal of bytes both ways at once.
func exchange(from, to *place, ipv6 bool) (err error) {
	var listener net.Listener
	if err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.address(ipv6), 0).String())
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	var client net.Conn
	if err := from.Do(func() (err error) {
		client, err = net.DialTimeout("tcp", listener.Addr().String(), time.Minute)
		return err
	}); err != nil {
		return err
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	sent := bytes.Repeat([]byte("segment"), 30_000)
	results := make(chan error, 4)
	for _, end := range []net.Conn{client, server} {
		must := end.SetDeadline(time.Now().Add(time.Minute))
		if must != nil {
			return must
		}
		go func() { _, err := end.Write(sent); results <- err }()
		go func() {
			got := make([]byte, len(sent))
			_, err := io.ReadFull(end, got)
			if err == nil && !bytes.Equal(got, sent) {
				err = errors.New("other bytes arrived than were sent")
			}
			results <- err
		}()
	}
	var errs []error
	for range cap(results) {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// TestSegmentsFitTheRoute: TCP between pods and the outside works, whoever begins
// and whoever sends, where a router on the way drops what is too large and does not
// say so; only the node's route tells the MTU. No packet is too large even once.
func TestSegmentsFitTheRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	w := newNarrow(t, s)
	w.silence(t)
	n := s.Node("n1")
	for _, route := range [][2]string{{"203.0.113.0/24", "172.30.0.250"}, {"2001:db8::/64", "fd00:30::250"}} {
		get(n.Output("ip", "route", "add", route[0], "via", route[1], "mtu", fmt.Sprint(narrowMTU)))(t)
	}
	s.Start()
	one := placePod(t, n, "one")
	for _, ipv6 := range s.families.Each() {
		for _, ends := range [][2]*place{{one, w.world}, {w.world, one}} {
			if err := exchange(ends[0], ends[1], ipv6); err != nil {
				t.Errorf("%s to %s, %s: %v", ends[0], ends[1], familyName(ipv6), err)
			}
		}
	}
	if lost := w.unsaid(t); lost > 0 {
		t.Errorf("%d packets were too large", lost)
	}
	// Without it the routers have something to be silent about.
	n.Restart("--clamp-mss=false")
	go exchange(w.world, one, false) // it ends when its sockets' namespaces do
	await(t, "a segment that is too large", func() error {
		if w.unsaid(t) == 0 {
			return errors.New("the routers have dropped none")
		}
		return nil
	})
	if out := get(n.Flatnetd("status"))(t); !bytes.Contains([]byte(out), []byte("not clamped to the MTU of routes")) {
		t.Errorf("flatnetd status:\n%s", out)
	}
}

// TestRoutersAnswersReachPods: what cannot be clamped, a datagram, is answered by
// the router that finds it too large, and the answer reaches the pod, though the
// router knows only the node's address.
func TestRoutersAnswersReachPods(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	w := newNarrow(t, s)
	n := s.Node("n1")
	for _, route := range [][2]string{{"203.0.113.0/24", "172.30.0.250"}, {"2001:db8::/64", "fd00:30::250"}} {
		must(t, n.AddRoute(route[0], route[1]))
	}
	s.Start()
	one := placePod(t, n, "one")
	for _, ipv6 := range s.families.Each() {
		to := w.world.echos[family(ipv6)]
		await(t, "the pod to know that its datagrams are too large, "+familyName(ipv6), func() error {
			if err := one.datagram(to, 1500, timeout/100); !errors.Is(err, unix.EMSGSIZE) {
				return fmt.Errorf("a datagram of 1500 bytes: %v, want %w", err, unix.EMSGSIZE)
			}
			return nil
		})
		must(t, one.datagram(to, narrowMTU, timeout))
		if err := exchange(one, w.world, ipv6); err != nil {
			t.Errorf("%s: %v", familyName(ipv6), err)
		}
	}
}
