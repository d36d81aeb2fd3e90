package fabric_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// damage is what somebody does to a node, as commands of a shell, and which
// objects flatnet_repairs_total counts then.
type damage struct {
	what   string
	shell  string
	counts string
}

// damages are done to node n1, which reaches n2 directly and n3 through the
// overlay. POD stands for a pod's host interface, and PID for flatnetd, which
// has to be stopped where it would be faster than the second half.
var damages = []damage{
	{"flushing our routes", "ip route flush proto 70; ip -6 route flush proto 70", "route"},
	{"flushing our routes of all tables", "ip route flush table all proto 70; ip -6 route flush table all proto 70", "route"},
	{"deleting the route to n2", "ip route del 10.244.2.0/24 proto 70", "route"},
	{"deleting the IPv6 route to n2", "ip -6 route del fd00:244:2::/64 proto 70", "route"},
	{"deleting the route to n3", "ip route del 10.244.3.0/24 proto 70", "route"},
	{"deleting the IPv6 route to n3", "ip -6 route del fd00:244:3::/64 proto 70", "route"},
	{"leading the route to n2 elsewhere", "ip route replace 10.244.2.0/24 via 172.30.0.254 proto 70", "route"},
	{"leading the IPv6 route to n2 elsewhere", "ip -6 route replace fd00:244:2::/64 via fd00:30::254 dev eth0 proto 70", "route"},
	{"making the route to n3 a blackhole", "ip route replace blackhole 10.244.3.0/24 proto 70", "route"},
	{"deleting the route to n3's address", "ip route del 172.30.1.3 table 70", "route"},
	{"deleting the unreachable route", "ip route del unreachable 10.244.1.0/24 proto 70 metric 1073741824", "route"},
	{"adding a route that is not ours but has our mark", "ip route add 10.250.0.0/16 via 172.30.0.2 proto 70", "route"},
	{"deleting a pod's route", "ip route del $(ip -o route show dev POD | grep -o '^10.244.1.[0-9]*') dev POD", "pod"},
	{"deleting a pod's IPv6 route", "ip -6 route del $(ip -6 -o route show dev POD | grep -o '^fd00:244:1::[0-9a-f]*') dev POD", "pod"},
	{"deleting the VXLAN device", "ip link del flatnet.vx", "link"},
	{"setting the VXLAN device down", "ip link set flatnet.vx down", "link"},
	{"setting the VXLAN device's MAC", "ip link set flatnet.vx address 02:00:00:00:00:99", "link"},
	{"setting the VXLAN device's MTU", "ip link set flatnet.vx mtu 1280", "link"},
	{"making the VXLAN device anew with another VNI", "kill -STOP PID; ip link del flatnet.vx; ip link add flatnet.vx type vxlan id 4711 dstport 4789; ip link set flatnet.vx up; kill -CONT PID", "link"},
	{"deleting forwarding entries", "for m in $(bridge fdb show dev flatnet.vx | cut -d' ' -f1); do bridge fdb del $m dev flatnet.vx; done", "forward"},
	{"leading a forwarding entry elsewhere", "bridge fdb replace $(bridge fdb show dev flatnet.vx | head -1 | cut -d' ' -f1) dev flatnet.vx dst 172.30.0.2 self permanent", "forward"},
	{"flushing neighbours", "ip neigh flush dev flatnet.vx nud permanent; ip -6 neigh flush dev flatnet.vx nud permanent", "neighbour"},
	{"changing a neighbour", "ip neigh replace 10.244.3.0 lladdr 02:00:00:00:00:98 dev flatnet.vx nud permanent", "neighbour"},
	{"deleting the rule", "ip rule del priority 7070", "rule"},
	{"deleting the IPv6 rule", "ip -6 rule del priority 7070", "rule"},
	{"deleting the VXLAN device's address", "ip addr del 10.244.1.0/32 dev flatnet.vx", "address"},
	{"flushing the VXLAN device's addresses", "ip addr flush dev flatnet.vx", "address"},
	{"no forwarding", "sysctl -qw net.ipv4.ip_forward=0", "host"},
	{"no IPv6 forwarding", "sysctl -qw net.ipv6.conf.all.forwarding=0", "host"},
	{"no forwarding on the underlay", "sysctl -qw net.ipv4.conf.eth0.forwarding=0", "host"},
	{"strict rp_filter on the underlay", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1", "host"},
	{"strict rp_filter on the VXLAN device", "sysctl -qw net.ipv4.conf.flatnet/vx.rp_filter=1", "host"},
	{"flushing the ruleset", "nft flush ruleset", "nftables"},
	{"deleting our table", "nft delete table inet flatnet", "nftables"},
	{"flushing a chain of ours", "nft flush chain inet flatnet postrouting", "nftables"},
	{"removing pods from our set", "nft flush set inet flatnet pods4", "nftables"},
	{"deleting the plugin's guard", "nft delete table ip6 flatnet", "pod"},
	{"deleting the table of host ports", "nft delete table inet flatnet-ports", "ports"},
	{"flushing the guard of 127.0.0.1", "nft flush chain inet flatnet-ports guard", "ports"},
	{"taking a host port", "nft delete element inet flatnet-ports any4 '{ tcp . 8080 }'", "ports"},
	{"leading a host port to a pod that is not there", "nft add element inet flatnet-ports any4 '{ tcp . 9999 : 10.244.1.99 . 80 }'", "ports"},
	{"deleting the configuration", "rm CONF/10-flatnet.conflist", "installation"},
	{"changing the configuration", "sed -i s/1450/9000/ CONF/10-flatnet.conflist", "installation"},
	{"deleting the configuration's directory", "rm -r CONF", "installation"},
	{"deleting the plugin", "rm BIN/flatnet BIN/flatnet-ipam", "installation"},
	{"truncating the plugin", ": > BIN/flatnet", "installation"},
	{"taking the plugin's right to be executed", "chmod -x BIN/flatnet", "installation"},
}

// TestRepair: what somebody else damages is repaired because the kernel tells of it, is
// counted, and traffic goes on: flatnetd does not look by itself in the meantime. How
// long that takes is logged, and measured by test/bench.
func TestRepair(t *testing.T) {
	s := newSite(t, topologies[2], cluster.Dual)
	s.Start("--resync", "24h")
	n := s.Node("n1")
	one := placePod(t, n, "one")
	others := []*place{placePod(t, s.Node("n2"), "two"), placePod(t, s.Node("n3"), "three"), placePod(t, n, "neighbour")}
	web := n.Prepare("test", "web")
	web.Capabilities = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	must(t, web.Add())
	awaitAllTasks(t, n)
	intact := ours(t, n)
	if text := ours(t, n); text != intact {
		t.Fatalf("the state is not steady:%s", differing(intact, text))
	}
	fill := strings.NewReplacer("POD", one.pod.HostInterface, "CONF", n.ConfDir, "BIN", n.BinDir, "PID", strconv.Itoa(n.Pid()))
	var slowest time.Duration
	for _, d := range damages {
		t.Run(d.what, func(t *testing.T) {
			before := n.Repairs(d.counts)
			get(n.Output("sh", "-ec", fill.Replace(d.shell)))(t)
			begin := time.Now()
			await(t, "the repair to be counted", func() error {
				if n.Repairs(d.counts) <= before {
					return fmt.Errorf("flatnet_repairs_total{object=%q} is %v, as before", d.counts, before)
				}
				return nil
			})
			await(t, "the repair", func() error {
				out, err := tryOurs(n)
				if err == nil && out != intact {
					err = errors.New(differing(intact, out))
				}
				return err
			})
			took := time.Since(begin)
			slowest = max(slowest, took)
			t.Logf("repaired after %s", took.Round(time.Millisecond))
			for _, ipv6 := range s.families.Each() {
				for _, other := range others {
					one.reaches(t, other, ipv6)
					other.reaches(t, one, ipv6)
				}
			}
			if problems := n.Status().Problems; len(problems) > 0 {
				t.Errorf("problems remain: %v", problems)
			}
		})
		if t.Failed() {
			t.Fatalf("what follows begins with another state than that of before:%s", differing(intact, ours(t, n)))
		}
	}
	t.Logf("%d kinds of damage, each repaired within %s", len(damages), slowest.Round(time.Millisecond))
	if out := get(n.Flatnetd("status"))(t); !strings.Contains(out, "no problems") {
		t.Errorf("flatnetd status:\n%s", out)
	}
}
