package bgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/racks"
)

// Nodes of one link are peers of each other, with a password.
func TestMesh(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	c.OneSegment(cluster.Dual, 3)
	s := &site{Racks: &racks.Racks{Cluster: c, Config: filepath.Join(c.Directory, "bgp.yaml")}, t: t}
	password := filepath.Join(c.Directory, "password")
	must(t, os.WriteFile(password, []byte("correct-horse"), 0o600))
	s.configure("asn: 64512\nmesh: {passwordFile: " + password + "}\naccept: {podCIDRs: true}\n")
	c.Start("--bgp-config", s.Config, "--fabric", "auto")
	for _, n := range c.Nodes {
		await(t, "sessions of "+n.Name, func() error { return s.established(n, 4) })
		await(t, "what others tell "+n.Name, func() error {
			b, err := agent.AskBGP(t.Context(), n.StateDir)
			if err == nil && b.Learned != 4 {
				err = fmt.Errorf("%d routes are learned: %+v", b.Learned, b.Peers)
			}
			return err
		})
		s.joined(n, "direct", 1)
	}
}

// A router that is the one other machine on an interface needs no address: both families go
// over one session of link-local addresses.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	link, outside := c.Lab.Segment("link"), c.Lab.Segment("outside")
	n := c.AddNode("n1", link.Port("172.30.0.1/24", "fd00:30::1/64"))
	r := &racks.Router{Node: c.Lab.Router("r", link.Port(), outside.Port("172.31.0.1/24", "fd00:31::1/64")), Name: "r", Directory: filepath.Join(c.Directory, "r"), IsBIRD: true}
	s := &site{Racks: &racks.Racks{Cluster: c, N1: n, Config: filepath.Join(c.Directory, "bgp.yaml")}, t: t}
	must(t, os.MkdirAll(r.Directory, 0o755))
	must(t, os.WriteFile(r.File("conf"), []byte(`router id 1.1.1.1;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface "eth1"; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; }
protocol bgp nodes {
	local as 64601;
	neighbor range fe80::/10 as 64512;
	interface "eth0";
	hold time 9;
	ipv4 { extended next hop; import all; export all; };
	ipv6 { import all; export all; };
}
`), 0o644))
	must(t, r.RunProgram(racks.BIRD, "-f", "-c", r.File("conf"), "-s", r.File("socket")))
	t.Cleanup(r.Kill)
	s.configure("asn: 64512\npeers: [{interface: eth0, asn: 64601, connectRetry: 1s}]\naccept: {prefixes: [{prefix: 172.31.0.0/24}, {prefix: \"fd00:31::/64\"}]}\n")
	c.Start("--bgp-config", s.Config)
	// The node has to have heard of the router: a datagram makes it ask.
	own, err := r.Output("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
	must(t, err)
	fields := strings.Fields(own)
	at, err := netip.ParsePrefix(fields[3])
	must(t, err)
	must(t, n.Do(func() error {
		conn, err := net.Dial("udp", net.JoinHostPort(at.Addr().WithZone("eth0").String(), "9"))
		if err == nil {
			_, err = conn.Write([]byte("?"))
			conn.Close()
		}
		return err
	}))
	await(t, "the session", func() error {
		if err := s.established(n, 1); err != nil {
			text, _ := r.Ask("show protocols all")
			return fmt.Errorf("%w; %s", err, text)
		}
		return nil
	})
	for _, family := range []string{"-4", "-6"} {
		await(t, "routes "+family, func() error {
			routes, err := n.Output("ip", family, "route", "show", "proto", "70", "metric", "7070")
			if err != nil || !strings.Contains(routes, at.Addr().String()+" dev eth0") {
				return fmt.Errorf("%v: %s", err, routes)
			}
			t.Log(routes)
			return nil
		})
	}
	s.knows(r, "10.244.1.0/24", true)
	s.knows(r, "fd00:244:1::/64", true)
	t.Log(ask(t, r, "show route"))
}
