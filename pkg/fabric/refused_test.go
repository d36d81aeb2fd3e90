package fabric

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// What is in the way of the fabric is told by its name, with what to do about it,
// and as one problem; it is left alone, and when it is gone there is none. Every
// advice is followed here.
func TestWhatIsInTheWay(t *testing.T) {
	for _, c := range []struct {
		name, setup string
		more        func(*testing.T, *netlab.Node) (undo func()) // what `ip` cannot do
		undo        string
		kind        problem.Kind
		want        string // sentence
		advice      string // a part of it
		follows     string // from it, a part of each; "" for none
	}{
		{
			name: "VNI and port", setup: "ip link add vxlan0 type vxlan id 70 dstport 4789 local 172.30.0.1", undo: "ip link del vxlan0", kind: problem.VXLANNumber,
			want:   "node n1: VXLAN device vxlan0: has VNI 70 at UDP port 4789, which flatnet.vx is to have: a node has room for one",
			advice: "remove it: `ip link del vxlan0`; or give flatnet another number, the same on all nodes: --vxlan-id", follows: "flatnet.vx",
		},
		{
			name: "VNI and port, of a device that was moved away", kind: problem.VXLANNumber,
			more: moveAway, want: "node n1: VNI 70 at UDP port 4789: belongs to a VXLAN device that is not in this network namespace, so that flatnet.vx cannot be made: one keeps both where it was made, as those of docker's overlay networks do",
			advice: "nsenter --net=… ip -d link show type vxlan", follows: "flatnet.vx",
		},
		{
			name: "the port, of an external device", setup: "ip link add ext0 type vxlan external dstport 4789; ip link set ext0 up", undo: "ip link del ext0", kind: problem.VXLANPort,
			want:   "node n1: VXLAN device ext0: has UDP port 4789 in another mode than flatnet.vx, which cannot be brought up: devices share a port only in the same mode, and an external one shares it with no other",
			advice: "remove it: `ip link del ext0`; or give flatnet another port, the same on all nodes: --vxlan-port", follows: "flatnet.vx",
		},
		{
			name: "the port, of a device in another mode", setup: "ip link add gbp0 type vxlan id 9 gbp dstport 4789 local 172.30.0.1; ip link set gbp0 up", undo: "ip link del gbp0", kind: problem.VXLANPort,
			want:   "node n1: VXLAN device gbp0: has UDP port 4789 in another mode than flatnet.vx, which cannot be brought up: devices share a port only in the same mode, and an external one shares it with no other",
			advice: "`ip link del gbp0`", follows: "flatnet.vx",
		},
		{
			name: "the port, of a program", more: listen, kind: problem.VXLANPort,
			want:   "node n1: UDP port 4789: is in use by another program, so that flatnet.vx cannot be brought up",
			advice: "`ss -lunp 'sport = :4789'` says which", follows: "flatnet.vx",
		},
		{
			name: "the name", setup: "ip link add flatnet.vx type bridge; ip link set flatnet.vx up", undo: "ip link del flatnet.vx", kind: problem.VXLANName,
			want:   "node n1: interface flatnet.vx: is of type bridge and not flatnet's, whose VXLAN device is to have this name",
			advice: "remove it: `ip link del flatnet.vx`; or give flatnet's another name: --vxlan-device", follows: "flatnet.vx",
		},
		{
			name: "IPv6 is off", setup: "sysctl -qw net.ipv6.conf.default.disable_ipv6=1", undo: "sysctl -qw net.ipv6.conf.flatnet/vx.disable_ipv6=0", kind: problem.FabricObject,
			want:   "node n1: ip addr add fd00:244:1::/128 dev flatnet.vx nodad noprefixroute preferred_lft 0: permission denied",
			advice: "`sysctl -w net.ipv6.conf.flatnet/vx.disable_ipv6=0`", follows: "flatnet.vx",
		},
		{
			name: "a route", setup: "ip route add blackhole 172.30.9.3/32 table 70", undo: "ip route del 172.30.9.3/32 table 70", kind: problem.RouteTaken,
			want:   "node n3: ip route add 172.30.9.3/32 via 10.244.3.0 dev flatnet.vx table 70 proto 70 onlink: somebody else's is there already: file exists",
			advice: "`ip route show 172.30.9.3/32 table 70` shows whose it is; if it is not wanted, remove it: `ip route del 172.30.9.3/32 table 70`",
		},
		{
			name: "an IPv6 route", setup: "ip -6 route add blackhole fd00:39::3 table 70", undo: "ip -6 route del fd00:39::3/128 table 70", kind: problem.RouteTaken,
			want:   "node n3: ip route add fd00:39::3/128 via fe80::",
			advice: "remove it: `ip -6 route del fd00:39::3/128 table 70`",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			onNode(t, func(n *netlab.Node, k *kernel.Fabric) {
				undo := func() { shell(t, n, c.undo) }
				if c.setup != "" {
					shell(t, n, c.setup)
				}
				if c.more != nil {
					undo = c.more(t, n)
				}
				under, err := k.Underlay()
				if err != nil {
					t.Fatal(err)
				}
				e := NewEngine(k)
				plan := (&Planner{Config: config(VXLAN)}).Plan(testNodes[0], testNodes[:3], under)
				if _, err := e.Sync(plan); err != nil {
					t.Fatal(err)
				}
				for range 2 { // it is the same when it is tried again
					said(t, e, c.kind, c.want, c.advice, c.follows)
					if result, err := e.Verify(); err != nil || len(result.Changes) > 0 {
						t.Errorf("tried again: %+v %v", result.Changes, err)
					}
				}
				undo() // which fails if it has been removed
				if _, err := e.Verify(); err != nil {
					t.Fatal(err)
				}
				present, desired := e.Present()
				if all := e.Problems("n1"); len(all) > 0 || present != desired || desired < 20 {
					t.Errorf("afterwards %d of %d objects are there, with the problems %v", present, desired, all)
				}
			})
		})
	}
}

// said fails the test unless there is one problem of the kind, with these parts.
func said(t *testing.T, e *Engine, kind problem.Kind, sentence, advice, follows string) {
	t.Helper()
	all := problem.Fold(e.Problems("n1"))
	if len(all) != 1 || all[0].Kind() != kind || !strings.HasPrefix(all[0].String(), sentence) || !strings.Contains(all[0].Advice(), advice) {
		t.Fatalf("want one problem %s: %s\n\t%s\ngot%s", kind, sentence, advice, list(all))
	}
	if got := all[0].Follows(); (follows == "") != (len(got) == 0) {
		t.Errorf("it follows:%s", list(got))
	}
	for _, f := range all[0].Follows() {
		if !strings.Contains(f.Object(), follows) {
			t.Errorf("%s does not follow from %s", f, sentence)
		}
	}
}

func list(all []problem.Problem) (text string) {
	for _, p := range all {
		text += "\n" + p.Kind().String() + ": " + p.String() + "\n\t" + p.Advice()
	}
	return text
}

func shell(t *testing.T, n *netlab.Node, command string) {
	t.Helper()
	if _, err := n.Output("sh", "-ec", command); err != nil {
		t.Fatal(err)
	}
}

// moveAway makes a VXLAN device and moves it to another network namespace.
func moveAway(t *testing.T, n *netlab.Node) (undo func()) {
	t.Helper()
	elsewhere, err := netlab.NewNamespace("elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	shell(t, n, "ip link add vxlan0 type vxlan id 70 dstport 4789 local 172.30.0.1")
	l, err := n.Netlink().LinkByName("vxlan0")
	if err == nil {
		err = n.Netlink().LinkSetNsFd(l, elsewhere.FD())
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		// A namespace ends some time after it was deleted.
		_, err := elsewhere.Output("ip", "link", "del", "vxlan0")
		if err := errors.Join(err, elsewhere.Delete()); err != nil {
			t.Fatal(err)
		}
	}
}

// listen has the tunnel's port, as a program of the node's might.
func listen(t *testing.T, n *netlab.Node) (undo func()) {
	t.Helper()
	var socket net.PacketConn
	if err := n.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", ":4789")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return func() { socket.Close() }
}

// What the kernel says tells what to do, where it says anything of that.
func TestAdviceGoesByTheKernelsWords(t *testing.T) {
	route := kernel.Route{Destination: netip.MustParsePrefix("10.244.2.0/24"), Link: "eth0", Gateway: netip.MustParseAddr("172.30.0.2")}
	for _, c := range []struct {
		change kernel.Change
		err    error
		kind   problem.Kind
		want   string // sentence
		advice string
	}{
		{kernel.Change{Object: route}, unix.EPERM, problem.FabricObject, route.String() + ": operation not permitted", "run flatnetd as root on the node, with CAP_NET_ADMIN"},
		{kernel.Change{Object: route}, unix.ENETUNREACH, problem.FabricObject, route.String() + ": network is unreachable",
			"look at `ip addr show dev eth0`: the interface is gone or down, or has lost its address; it is tried again by itself"},
		{kernel.Change{Object: route}, unix.ENOMEM, problem.FabricObject, route.String() + ": cannot allocate memory", problem.FabricObject.Advice()},
		{kernel.Change{Verb: kernel.Delete, Object: route}, unix.EBUSY, problem.FabricObject, "undo: " + route.String() + ": device or resource busy", problem.FabricObject.Advice()},
		{kernel.Change{Object: kernel.Neighbour{Link: tunnelName, Address: netip.MustParseAddr("10.244.2.0")}}, fmt.Errorf("%w: interface flatnet.vx is down", kernel.ErrNoTunnel), problem.FabricObject,
			"ip neigh add 10.244.2.0 lladdr 00:00:00:00:00:00 dev flatnet.vx nud permanent proto 70: tunnel is not usable: interface flatnet.vx is down",
			"look at `ip addr show dev flatnet.vx`: the interface is gone or down, or has lost its address; it is tried again by itself"},
		{kernel.Change{Object: kernel.Route{Destination: netip.MustParsePrefix("10.244.1.0/24"), Unreachable: true, Metric: 7}}, kernel.ErrExists, problem.RouteTaken,
			"ip route add unreachable 10.244.1.0/24 proto 70 metric 7: somebody else's is there already: file exists",
			"`ip route show 10.244.1.0/24` shows whose it is; if it is not wanted, remove it: `ip route del 10.244.1.0/24 metric 7`"},
		{kernel.Change{Object: kernel.Rule{From: netip.MustParsePrefix("fd00:244:1::/64"), Table: 70, Priority: 7070}}, kernel.ErrExists, problem.RouteTaken,
			"ip rule add from fd00:244:1::/64 lookup 70 priority 7070 protocol 70: somebody else's is there already: file exists",
			"`ip -6 rule show from fd00:244:1::/64` shows it; if it is not wanted, remove it: `ip -6 rule del from fd00:244:1::/64 priority 7070`"},
	} {
		p := Failure{Change: c.change, Err: fmt.Errorf("%s: %w", c.change, c.err)}.problem("n1")
		if p.Kind() != c.kind || p.String() != "node n1: "+c.want || p.Advice() != c.advice {
			t.Errorf("got%s\nwant\n%s: node n1: %s\n\t%s", list([]problem.Problem{p}), c.kind, c.want, c.advice)
		}
	}
}
