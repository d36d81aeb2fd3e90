package fabric_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestSpoofing: what a pod sends from an address that is not its own is dropped
// at its own host interface.
func TestSpoofing(t *testing.T) {
	for _, mode := range []string{"direct", "vxlan"} {
		for _, filter := range []string{"0", "2"} {
			t.Run(mode+"/rp_filter="+filter, func(t *testing.T) {
				t.Parallel()
				testSpoofing(t, mode, filter)
			})
		}
	}
}

func testSpoofing(t *testing.T, mode, filter string) {
	s := newSite(t, topologies[0], cluster.Dual)
	n1, n2 := s.Node("n1"), s.Node("n2")
	must(t, n1.SetSysctl("net/ipv4/conf/all/rp_filter", filter))
	s.Start("--fabric", mode)
	if filter == "2" {
		// What is loose for all interfaces is loose for each: the kernel takes
		// the larger number.
		await(t, "nftables to check sources instead", func() error {
			if text := get(n1.Output("nft", "list", "ruleset"))(t); !strings.Contains(text, "chain guard") {
				return errors.New(text)
			}
			return nil
		})
	}
	one, neighbour, two := placePod(t, n1, "one"), placePod(t, n1, "neighbour"), placePod(t, n2, "two")
	nodes := []*place{placeNode(t, n1), placeNode(t, n2)}
	captured := s.capture(t)
	spoofed := map[netip.Addr]bool{}
	for _, ipv6 := range s.families.Each() {
		sources := map[string]netip.Addr{
			"its neighbour's": neighbour.address(ipv6), "a remote pod's": two.address(ipv6),
			"its node's": nodes[0].address(ipv6), "another node's": nodes[1].address(ipv6),
			"nobody's on its node": vtep(n1, ipv6).Next().Next().Next().Next().Next(), "nobody's on another": vtep(n2, ipv6).Next().Next().Next(),
			"its node's VTEP's": vtep(n1, ipv6), "another VTEP's": vtep(n2, ipv6), "the gateway's": vtep(n1, ipv6).Next(),
			"an outside": netip.MustParseAddr([...]string{"203.0.113.7", "2001:db8::7"}[family(ipv6)]),
		}
		for _, to := range []*place{neighbour, two, nodes[0], nodes[1]} {
			socket := get(listenUDP(to.Namespace, to.address(ipv6)))(t)
			defer socket.Close()
			at := socket.LocalAddr().(*net.UDPAddr).AddrPort()
			for whose, source := range sources {
				if source == to.address(ipv6) {
					continue // does not leave the pod
				}
				spoofed[source] = true
				must(t, one.SendAs(source, at, whose))
			}
			must(t, one.SendAs(one.address(ipv6), at, "own"))
			// What was sent before has come before, or is dropped.
			for deadline := timeout; ; deadline = unanswered {
				socket.SetReadDeadline(time.Now().Add(deadline))
				buffer := make([]byte, 64)
				n, from, err := socket.ReadFromUDPAddrPort(buffer)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					if deadline == timeout {
						t.Errorf("%s got nothing, not even from the pod's own address %s", to, one.address(ipv6))
					}
					break
				}
				must(t, err)
				if text := string(buffer[:n]); text != "own" || from.Addr() != one.address(ipv6) {
					t.Errorf("%s got a packet from %s address, %s", to, text, from.Addr())
				}
			}
		}
	}
	for _, p := range captured() {
		if p.Inner != nil {
			p = *p.Inner
		}
		// Answers of nodes' own and the marks are from others' ports.
		if p.Protocol == unix.IPPROTO_UDP && p.Source != one.address(p.Source.Is6()) && spoofed[p.Source] {
			t.Errorf("a spoofed packet crossed the underlay: %s", p)
		}
	}
	// Without what checks, such packets arrive: the test can fail.
	n1.Kill()
	get(n1.Output("sh", "-ec", "nft flush ruleset; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done"))(t)
	for _, ipv6 := range s.families.Each() {
		socket := get(listenUDP(neighbour.Namespace, neighbour.address(ipv6)))(t)
		defer socket.Close()
		must(t, one.SendAs(two.address(ipv6), socket.LocalAddr().(*net.UDPAddr).AddrPort(), "a remote pod's"))
		socket.SetReadDeadline(time.Now().Add(timeout))
		if _, from, err := socket.ReadFromUDPAddrPort(make([]byte, 64)); err != nil || from.Addr() != two.address(ipv6) {
			t.Errorf("without checks, a packet came from %s: %v", from, err)
		}
	}
}
