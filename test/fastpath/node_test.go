package fastpath_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// twoNetworks adds two nodes that are on two networks, and use the first one.
func twoNetworks(s *site) (addresses [2][]netip.Addr) {
	a, b := s.Lab.Segment("a"), s.Lab.Segment("b")
	for i := range 2 {
		host := i + 1
		s.AddNode(fmt.Sprint("n", host),
			a.Port(fmt.Sprintf("172.30.0.%d/24", host), fmt.Sprintf("fd00:30::%d/64", host)),
			b.Port(fmt.Sprintf("172.31.0.%d/24", host), fmt.Sprintf("fd00:31::%d/64", host)))
		addresses[i] = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("172.31.0.%d", host)), netip.MustParseAddr(fmt.Sprintf("fd00:31::%d", host))}
	}
	return addresses
}

// Nodes get other addresses, on another network, in the middle of connections: from then
// on nothing goes by the old network, which ends.
func TestOtherAddressesOfNodes(t *testing.T) {
	for _, fabric := range []string{"direct", "vxlan"} {
		t.Run(fabric, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := &site{Cluster: cluster.Start(t), t: t, flags: []string{"--datapath", "ebpf", "--resync", "1h", "--fabric", fabric, "--mtu", "1400", datapath}}
				addresses := twoNetworks(s)
				s.start()
				web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
				web.Namespace.ServeLines(t, 80)
				talks := s.fastTalks(client, web, s.Nodes...)
				for i, n := range s.Nodes {
					n.Addresses = addresses[i]
				}
				s.WriteNodes()
				for i, n := range s.Nodes {
					for family, to := range map[string]netip.Addr{"-4": s.Nodes[1-i].PodCIDRs[0].Addr(), "-6": s.Nodes[1-i].PodCIDRs[1].Addr()} {
						s.Eventually(fmt.Sprintf("%s to send to %s by the other network", n.Name, to), func() error {
							for _, k := range talks {
								must(t, k.say("meanwhile"))
							}
							text, err := n.Output("ip", family, "route", "get", to.Next().String())
							if err == nil && fabric == "vxlan" {
								// The route stays as it is: what it is wrapped in changes.
								var tunnel string
								tunnel, err = n.Output("ip", "-details", "link", "show", "flatnet.vx")
								text += tunnel
							}
							if err == nil && !strings.Contains(text, "dev eth1") && !strings.Contains(text, "local "+addresses[i][0].String()) {
								err = fmt.Errorf("%s", text)
							}
							return err
						})
					}
				}
				for _, n := range s.Nodes {
					_, err := n.Output("ip", "link", "set", "eth0", "down")
					must(t, err)
				}
				for _, k := range talks {
					must(t, k.say(strings.Repeat("x", 100_000)))
					s.fast(k, s.Nodes...)
				}
			})
		})
	}
}

// All is decided anew, again and again in the middle of streams: every byte arrives, and
// every datagram.
func TestDecidedAnewInMidStream(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 2, "--fabric", "direct", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		web.Namespace.ServeLines(t, 80)
		var streams []*echoing
		var senders []*sender
		var boxes []*mailbox
		for i, ipv6 := range []bool{false, true} {
			streams = append(streams, s.echo("stream", client, netip.AddrPortFrom(web.Address(ipv6), 80), uint64(i)))
			at := netip.AddrPortFrom(web.Address(ipv6), 5000)
			boxes, senders = append(boxes, receive(t, web.Namespace, at)), append(senders, send(t, client.Namespace, netip.AddrPort{}, at))
		}
		raised := s.Nodes[0].Status().FastPath.Raised
		const changes, each = 40, 5
		for change := range changes {
			n := s.Nodes[change%2]
			_, err := n.Output("nft", "add table ip other; delete table ip other")
			must(t, err)
			for i, k := range senders {
				for number := range each {
					_, err := fmt.Fprintf(k, "quiet %d %d", change, number)
					must(t, err)
				}
				text := fmt.Sprintf("answer %d", change)
				_, err := k.Write([]byte(text))
				must(t, err)
				if got := boxes[i].until(t, text); len(got) != each+1 {
					t.Fatalf("%d of %d datagrams have come after change %d: %v", len(got), each+1, change, got)
				}
			}
		}
		if now := s.Nodes[0].Status().FastPath.Raised; !s.kernel() && now < raised+changes/4 {
			t.Errorf("all was decided anew %d times, with %d changes", now-raised, changes/2)
		}
		for _, e := range streams {
			e.stop.Store(true)
			if err := <-e.ended; err != nil {
				t.Error(err)
			}
			if e.rounds.Load() == 0 {
				t.Error("the stream has not moved")
			}
		}
		for _, k := range senders {
			s.fastDatagrams(k, s.Nodes...)
		}
	})
}
