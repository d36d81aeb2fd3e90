package fastpath_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// Packets of a connection take the fast path: on one node, and between two by the underlay
// and by the overlay, in both families; whatever is said arrives.
func TestConnectionsTakeTheFastPath(t *testing.T) {
	for _, mode := range []string{"one node", "direct", "vxlan"} {
		t.Run(mode, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				nodes, fabric := 2, mode
				if mode == "one node" {
					nodes, fabric = 1, "direct"
				}
				s := newSite(t, cluster.Dual, nodes, "--fabric", fabric, datapath)
				web, client := s.pod(s.Nodes[nodes-1], "web"), s.pod(s.Nodes[0], "client")
				web.Namespace.ServeLines(t, 80)
				var talks []*talk
				for _, ipv6 := range []bool{false, true} {
					k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80))
					talks = append(talks, k)
					s.fast(k, s.Nodes...)
					// Large and small, so that segments are cut and put together on the way.
					for _, size := range []int{1, 100, 1400, 1448, 9000, 60000, 300000, 2, 1460} {
						must(t, k.say(strings.Repeat("x", size)))
					}
					s.fast(k, s.Nodes...)
				}
				// Whoever computes checksums, cuts and puts together: pods themselves, or nobody
				// on the way between pods of one node.
				for _, features := range []string{"tx off", "gso off tso off rx off gro off", "tx on", "gso on tso on rx on gro on"} {
					for _, p := range []*cluster.Pod{client, web} {
						_, err := p.Output("ethtool", append([]string{"-K", "eth0"}, strings.Fields(features)...)...)
						must(t, err)
					}
					for _, k := range talks {
						s.fast(k, s.Nodes[0])
						for _, size := range []int{1, 1448, 9000, 100000} {
							must(t, k.say(strings.Repeat("x", size)))
						}
					}
				}
				// What nodes' cards can do is different as well, for what is wrapped above all.
				for _, features := range []string{"tx-udp_tnl-segmentation off", "gso off tso off", "tx off", "tx on", "gso on tso on tx-udp_tnl-segmentation on"} {
					for _, n := range s.Nodes {
						_, err := n.Output("ethtool", append([]string{"-K", "eth0"}, strings.Fields(features)...)...)
						must(t, err)
					}
					for _, k := range talks {
						s.fast(k, s.Nodes...)
						for _, size := range []int{1, 1448, 9000, 100000} {
							must(t, k.say(strings.Repeat("x", size)))
						}
					}
				}
				if s.kernel() {
					return
				}
				f := s.Nodes[0].Status().FastPath
				if f.Hits == 0 || f.Learned == 0 || (f.Wrapped > 0 && f.Unwrapped > 0) != (mode == "vxlan") {
					t.Errorf("status is %+v", f)
				}
				// What is not used may be to be decided anew by then.
				k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
				s.fast(k, s.Nodes...)
				own, _ := k.ends()
				s.Eventually("what people are shown", func() error {
					must(t, k.say("and so on"))
					text, err := s.Nodes[0].Flatnetd("flows", "--pod", "test/client")
					if err == nil && (!strings.Contains(text, "test/client") || !strings.Contains(text, own.String())) {
						err = fmt.Errorf("flows:\n%s", text)
					}
					if err != nil {
						return err
					}
					text, err = s.Nodes[0].Flatnetd("status")
					if want := fmt.Sprintf("ebpf at %d interfaces by %s, ", len(f.Interfaces), way()); err == nil && !strings.Contains(text, want) {
						err = fmt.Errorf("no %q in\n%s", want, text)
					}
					return err
				})
			})
		})
	}
}
