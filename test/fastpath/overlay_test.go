package fastpath_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// inside are the ends of what a packet of the overlay carries.
type inside struct {
	protocol int
	from, to netip.AddrPort
}

// outside is what a packet of the overlay shows to routers that choose a way.
type outside struct {
	from, to     netip.AddrPort
	dontFragment bool
	network      int
}

// What the programs wrap looks like what the kernel wraps, so that nothing on the way can
// tell the two apart: routers that share packets among links keep those of a flow together.
func TestWrappedAsByTheKernel(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.Dual, 2, "--fabric", "vxlan")
	web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
	web.Namespace.ServeLines(t, 80)
	const port = 4789
	stop, err := s.segment.Capture(port)
	must(t, err)
	for _, ipv6 := range []bool{false, true} {
		for range 5 {
			s.fast(s.talk(client.Namespace, netip.AddrPortFrom(web.Address(ipv6), 80)), s.Nodes...)
		}
		_, _, k := s.datagrams(client, web, ipv6)
		must(t, k.asks("and so on"))
		must(t, k.Close())
	}
	for _, n := range s.Nodes {
		if f := n.Status().FastPath; f.Wrapped == 0 {
			t.Errorf("%s: status is %+v", n.Name, f)
		}
	}
	packets, err := stop()
	must(t, err)
	seen, ways := map[inside]outside{}, map[int]bool{}
	for _, p := range packets {
		if p.Inner == nil || p.Inner.SourcePort == 0 {
			continue
		}
		ends := func(p netlab.Packet) (from, to netip.AddrPort) {
			return netip.AddrPortFrom(p.Source, uint16(p.SourcePort)), netip.AddrPortFrom(p.Destination, uint16(p.DestinationPort))
		}
		in, out := inside{protocol: p.Inner.Protocol}, outside{dontFragment: p.DontFragment, network: p.VNI}
		in.from, in.to = ends(*p.Inner)
		out.from, out.to = ends(p)
		if before, known := seen[in]; known && before != out {
			t.Errorf("packets of %+v are in %+v and in %+v", in, before, out)
		}
		seen[in] = out
		ways[p.SourcePort] = true
	}
	const flows = 2 * 2 * 6 // directions, families
	if len(seen) < flows || len(ways) < flows/2 {
		t.Errorf("%d directions of flows were seen, from %d ports", len(seen), len(ways))
	}
}

// Where the underlay gets too narrow for what the overlay makes of packets, the kernel cuts
// that, or has senders send less: the connection goes on, both ways.
func TestNarrowerUnderlayOfTheOverlay(t *testing.T) {
	onBothPaths(t, func(t *testing.T, datapath string) {
		s := newSite(t, cluster.Dual, 2, "--fabric", "vxlan", datapath)
		web, client := s.pod(s.Nodes[1], "web"), s.pod(s.Nodes[0], "client")
		web.Namespace.ServeLines(t, 80)
		talks := s.fastTalks(client, web, s.Nodes...)
		for _, k := range talks {
			must(t, k.say(strings.Repeat("x", 300_000)))
		}
		for _, mtu := range []string{"1400", "1500"} {
			for _, n := range s.Nodes {
				_, err := n.Output("ip", "link", "set", "eth0", "mtu", mtu)
				must(t, err)
			}
			for _, k := range talks {
				must(t, k.say(strings.Repeat("y", 300_000)))
			}
		}
		for _, k := range talks {
			s.fast(k, s.Nodes...)
			must(t, k.say(strings.Repeat("z", 300_000)))
		}
	})
}
