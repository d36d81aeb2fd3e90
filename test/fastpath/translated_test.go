package fastpath_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// services is what kube-proxy does for a ClusterIP and a NodePort, in a few rules.
const services = `table inet kube-proxy {
	chain translate {
		ip daddr 10.96.0.1 tcp dport 80 dnat ip to %[1]s:80
		ip6 daddr fd00:96::1 tcp dport 80 dnat ip6 to [%[2]s]:80
		fib daddr type local meta nfproto ipv4 tcp dport 30080 ct mark set 7 dnat ip to %[1]s:80
		fib daddr type local meta nfproto ipv6 tcp dport 30080 ct mark set 7 dnat ip6 to [%[2]s]:80
	}
	chain prerouting { type nat hook prerouting priority -100; jump translate; }
	chain output { type nat hook output priority -100; jump translate; }
	chain postrouting {
		type nat hook postrouting priority 100;
		ct mark 7 masquerade
		ip saddr %[1]s ip daddr %[1]s masquerade
		ip6 saddr %[2]s ip6 daddr %[2]s masquerade
	}
}`

// What is translated on its way never takes the fast path, and its answers are translated
// back: connections by a ClusterIP, a NodePort and a host port, from pods here and
// elsewhere, from nodes and from outside, a pod that reaches itself so, and what
// leaves the cluster.
func TestWhatIsTranslatedIsNeverRemembered(t *testing.T) {
	for _, fabric := range []string{"direct", "vxlan"} {
		t.Run(fabric, func(t *testing.T) {
			onBothPaths(t, func(t *testing.T, datapath string) {
				s := newSite(t, cluster.Dual, 2, "--fabric", fabric, datapath)
				n1, n2 := s.Nodes[0], s.Nodes[1]
				web := n1.Prepare("shop", "web")
				web.Capabilities = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
				must(t, web.Add())
				s.attached(web)
				near, far := s.pod(n1, "near"), s.pod(n2, "far")
				outside := s.Lab.Node("outside", s.segment.Port("172.30.0.200/24", "fd00:30::c8/64"))
				web.Namespace.ServeLines(t, 80)
				outside.Namespace.ServeLines(t, 80)
				for _, n := range s.Nodes {
					_, err := n.Output("nft", fmt.Sprintf(services, web.Address(false), web.Address(true)))
					must(t, err)
					// Where the route leads to does not matter, but there has to be one.
					must(t, n.AddRoute("10.96.0.0/16", "172.30.0.200"))
					must(t, n.AddRoute("fd00:96::/64", "fd00:30::c8"))
				}
				type way struct {
					what string
					from *netlab.Namespace
					to   netip.AddrPort
					by   *cluster.Node // who translates
				}
				for _, ipv6 := range []bool{false, true} {
					address := func(v4, v6 string, port uint16) netip.AddrPort {
						if ipv6 {
							v4 = v6
						}
						return netip.AddrPortFrom(netip.MustParseAddr(v4), port)
					}
					clusterIP, node := address("10.96.0.1", "fd00:96::1", 80), address("172.30.0.1", "fd00:30::1", 30080)
					var talks []*talk
					var ways []way
					for _, w := range []way{
						{"near by ClusterIP", near.Namespace, clusterIP, n1}, {"far by ClusterIP", far.Namespace, clusterIP, n2},
						{"itself by ClusterIP", web.Namespace, clusterIP, n1}, {"node by ClusterIP", n1.Namespace, clusterIP, n1}, {"other node by ClusterIP", n2.Namespace, clusterIP, n2},
						{"near by NodePort", near.Namespace, node, n1}, {"far by NodePort", far.Namespace, node, n1}, {"outside by NodePort", outside.Namespace, node, n1},
						{"outside by the other's NodePort", outside.Namespace, address("172.30.0.2", "fd00:30::2", 30080), n2},
						{"near by host port", near.Namespace, address("172.30.0.1", "fd00:30::1", 8080), n1}, {"outside by host port", outside.Namespace, address("172.30.0.1", "fd00:30::1", 8080), n1},
						{"far by host port", far.Namespace, address("172.30.0.1", "fd00:30::1", 8080), n1},
						{"near to outside", near.Namespace, address("172.30.0.200", "fd00:30::c8", 80), n1}, {"far to outside", far.Namespace, address("172.30.0.200", "fd00:30::c8", 80), n2},
					} {
						ways = append(ways, w)
						talks = append(talks, s.talk(w.from, w.to))
					}
					const rounds = 40
					for range rounds {
						for i, k := range talks {
							if err := k.say("and so on"); err != nil {
								t.Fatalf("%s: %v", ways[i].what, err)
							}
						}
					}
					// That nothing is remembered is no accident.
					s.fast(s.talk(far.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80)), n1, n2)
					for i, k := range talks {
						end, _ := k.ends()
						all, err := ways[i].by.Flatnetd("flows", "-o", "json")
						must(t, err)
						if strings.Contains(all, fmt.Sprintf("%q", end)) {
							t.Errorf("%s is remembered by %s: %s in %s", ways[i].what, ways[i].by.Name, end, all)
						}
					}
					for i, k := range talks {
						if err := k.say("still right"); err != nil {
							t.Errorf("%s: %v", ways[i].what, err)
						}
					}
				}
			})
		})
	}
}
