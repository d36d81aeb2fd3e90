package masquerade

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

var patience = pace.Far()

// stage is a pod, its node, and a machine that is everything else: another
// node with a pod, an exempt network, and the world outside.
type stage struct {
	lab   *netlab.Lab
	pod   *netlab.Namespace
	node  *netlab.Node
	world *netlab.Node
}

func newStage(t *testing.T) stage {
	t.Helper()
	lab := netlab.Start(t)
	lan := lab.Segment("lan")
	s := stage{
		lab:  lab,
		pod:  lab.Pod("web"),
		node: lab.Router("node", lan.Port("172.30.0.1/24", "fd00:30::1/64")),
		world: lab.Node("world", lan.Port("172.30.0.2/24", "fd00:30::2/64", "10.244.2.5/32", "fd00:244:2::5/128",
			"192.168.7.1/32", "fd12::1/128", "203.0.113.1/32", "2001:db8::1/128")),
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.wire(t, s.pod, "vethweb")
	must(s.pod.AddAddress("eth0", "10.244.1.2/32"))
	must(s.pod.AddAddress("eth0", "fd00:244:1::2/128"))
	must(s.node.AddAddress("vethweb", "169.254.1.1/32"))
	must(s.node.AddAddress("vethweb", "fe80::1/64"))
	for _, r := range []struct {
		in           *netlab.Namespace
		to, via, dev string
		source       string
	}{
		{s.pod, "169.254.1.1/32", "", "eth0", ""},
		{s.pod, "0.0.0.0/0", "169.254.1.1", "eth0", ""},
		{s.pod, "::/0", "fe80::1", "eth0", ""},
		{s.node.Namespace, "10.244.1.2/32", "", "vethweb", "172.30.0.1"},
		{s.node.Namespace, "fd00:244:1::2/128", "", "vethweb", "fd00:30::1"},
		{s.node.Namespace, "0.0.0.0/0", "172.30.0.2", "eth0", ""},
		{s.node.Namespace, "::/0", "fd00:30::2", "eth0", ""},
		{s.world.Namespace, "10.244.1.0/24", "172.30.0.1", "eth0", "172.30.0.2"},
		{s.world.Namespace, "fd00:244:1::/64", "fd00:30::1", "eth0", "fd00:30::2"},
	} {
		link, err := r.in.Netlink().LinkByName(r.dev)
		must(err)
		p := netip.MustParsePrefix(r.to)
		route := &netlink.Route{LinkIndex: link.Attrs().Index,
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if r.source != "" {
			route.Src = netip.MustParseAddr(r.source).AsSlice()
		}
		if r.via != "" {
			route.Gw = netip.MustParseAddr(r.via).AsSlice()
		} else {
			route.Scope = unix.RT_SCOPE_LINK
		}
		must(r.in.Netlink().RouteAdd(route))
	}
	return s
}

// wire joins a pod with the node as the plugin does: an interface of the pods'
// group.
func (s stage) wire(t *testing.T, pod *netlab.Namespace, host string) {
	t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Group = host, kernel.Group
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(pod.FD())}
	if err := s.node.Netlink().LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	if err := pod.SetSysctl("net/ipv6/conf/eth0/accept_dad", "0"); err != nil {
		t.Fatal(err)
	}
	if err := s.node.Up(host); err != nil {
		t.Fatal(err)
	}
	if err := pod.Up("eth0"); err != nil {
		t.Fatal(err)
	}
}

func stageConfig() Config {
	c := full()
	c.GuardIPv4 = false
	return c
}

// keep calls f in the node's namespace.
func (s stage) keep(t *testing.T, f func() error) {
	t.Helper()
	if err := s.node.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (s stage) sync(t *testing.T, k *Keeper, c Config) {
	t.Helper()
	s.keep(t, func() error { _, err := k.Sync(Plan(c)); return err })
}

// seen asks an echo in to at address which source it sees, over UDP and TCP.
func seen(t *testing.T, from, to *netlab.Namespace, address string) (udp, tcp string) {
	t.Helper()
	at, stop, err := to.Echo(netip.AddrPortFrom(netip.MustParseAddr(address), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	source, _, err := from.Ask(netip.Addr{}, at, patience)
	if err != nil {
		t.Fatal(err)
	}
	client, server := stream(t, from, to, address)
	defer client.Close()
	defer server.Close()
	return source.String(), server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
}

// stream opens a TCP connection between two namespaces.
func stream(t *testing.T, from, to *netlab.Namespace, address string) (client, server net.Conn) {
	t.Helper()
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = from.Do(func() (err error) {
		client, err = net.DialTimeout("tcp", listener.Addr().String(), patience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// talk passes a word each way.
func talk(client, server net.Conn) error {
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		way[1].SetDeadline(time.Now().Add(patience))
		if _, err := way[0].Write([]byte("word")); err != nil {
			return err
		}
		if _, err := way[1].Read(make([]byte, 4)); err != nil {
			return err
		}
	}
	return nil
}

func TestWhoSeesWhichSource(t *testing.T) {
	s := newStage(t)
	k := &Keeper{}
	pod4, pod6, node4, node6 := "10.244.1.2", "fd00:244:1::2", "172.30.0.1", "fd00:30::1"
	type flow struct {
		from, to      *netlab.Namespace
		address, want string
	}
	pod, node, world := s.pod, s.node.Namespace, s.world.Namespace
	never := []flow{
		{pod, world, "172.30.0.2", pod4}, {pod, world, "fd00:30::2", pod6}, // pod to node
		{pod, node, "172.30.0.1", pod4}, {pod, node, "fd00:30::1", pod6},
		{pod, world, "10.244.2.5", pod4}, {pod, world, "fd00:244:2::5", pod6}, // pod to pod
		{pod, world, "192.168.7.1", pod4}, {pod, world, "fd12::1", pod6}, // exempt
		{world, pod, pod4, "172.30.0.2"}, {world, pod, pod6, "fd00:30::2"}, // node to pod
		{node, pod, pod4, node4}, {node, pod, pod6, node6},
		{node, world, "203.0.113.1", node4}, {node, world, "2001:db8::1", node6}, // the node itself
	}
	for _, c := range []struct {
		name       string
		ipv4, ipv6 bool
	}{{"both", true, true}, {"IPv4", true, false}, {"IPv6", false, true}, {"none", false, false}} {
		t.Run(c.name, func(t *testing.T) {
			config := stageConfig()
			config.IPv4, config.IPv6 = c.ipv4, c.ipv6
			s.sync(t, k, config)
			out := []flow{{pod, world, "203.0.113.1", pod4}, {pod, world, "2001:db8::1", pod6}}
			if c.ipv4 {
				out[0].want = node4
			}
			if c.ipv6 {
				out[1].want = node6
			}
			for _, f := range append(out, never...) {
				udp, tcp := seen(t, f.from, f.to, f.address)
				if udp != f.want || tcp != f.want {
					t.Errorf("%s from %s saw %s over UDP and %s over TCP, want %s", f.address, f.from.Name, udp, tcp, f.want)
				}
			}
		})
	}
}

func TestConnectionsSurvive(t *testing.T) {
	s := newStage(t)
	k, hold := &Keeper{}, &Hold{}
	s.sync(t, k, stageConfig())
	s.keep(t, func() error {
		if err := hold.Take(); !errors.Is(err, ErrNoOwners) {
			return err
		}
		return nil
	})
	defer hold.Release()
	var clients, servers []net.Conn
	connect := func() {
		for _, address := range []string{"203.0.113.1", "2001:db8::1", "10.244.2.5", "fd00:244:2::5"} {
			client, server := stream(t, s.pod, s.world.Namespace, address)
			t.Cleanup(func() { client.Close(); server.Close() })
			clients, servers = append(clients, client), append(servers, server)
		}
	}
	connect()
	without := stageConfig()
	without.Pods, without.Nodes = nil, nil
	guarded := stageConfig()
	guarded.GuardIPv4 = true
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"sync", func() error { _, err := k.Sync(Plan(without)); return err }},
		{"sync back", func() error { _, err := k.Sync(Plan(stageConfig())); return err }},
		{"new table", func() error { _, err := k.Sync(Plan(guarded)); return err }},
		{"restart", func() error { k.Close(); k = &Keeper{}; _, err := k.Sync(Plan(guarded)); return err }},
		{"verify", func() error { _, err := k.Verify(Plan(stageConfig())); return err }},
		{"ruleset flushed", func() error {
			// When write returns, the kernel has let go of what the rules needed.
			write(t, func(c *nftables.Conn) { c.FlushRuleset() })
			if hold.Held() {
				return nil // nobody repairs it yet, and all go on
			}
			t.Log("this kernel has no tables with an owner (Linux 5.12): whoever sends while the rules are gone, be it an acknowledgement, may be cut off")
			if _, err := k.Verify(Plan(stageConfig())); err != nil {
				return err
			}
			clients, servers = nil, nil
			return nil
		}},
		{"ruleset repaired", func() error { _, err := k.Verify(Plan(stageConfig())); return err }},
		{"somebody removes the hold", func() error {
			if !hold.Held() {
				return nil
			}
			c, err := nftables.New(nftables.AsLasting())
			if err != nil {
				return err
			}
			defer c.CloseLasting()
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: holdName})
			if err := c.Flush(); !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("deleting table %s: %v, want %w", holdName, err, unix.EPERM)
			}
			return nil
		}},
		{"remove where others translate too", func() error {
			write(t, func(c *nftables.Conn) {
				chain := c.AddChain(&nftables.Chain{
					Table: c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other"}), Name: "nat", Type: nftables.ChainTypeNAT,
					Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
				})
				// The chain alone does not keep connection tracking on: what is in
				// it does. Here it is something that no packet of this test has.
				c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{
					&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, 0x4000)},
					&expr.Masq{},
				}})
			})
			_, err := k.Remove()
			hold.Release()
			return err
		}},
	} {
		s.keep(t, step.do)
		if clients == nil {
			connect()
		}
		for i := range clients {
			if err := talk(clients[i], servers[i]); err != nil {
				t.Errorf("%s: %s: %v", step.what, clients[i].RemoteAddr(), err)
			}
		}
	}
}

// Who begins to send while the rules are gone sends with the node's address as
// soon as they are back, on the same socket.
func TestWhatBeganWithoutRulesIsTranslatedLater(t *testing.T) {
	s := newStage(t)
	k := &Keeper{}
	for _, flow := range []struct{ outside, pod, node string }{
		{"203.0.113.1", "10.244.1.2", "172.30.0.1"}, {"2001:db8::1", "fd00:244:1::2", "fd00:30::1"},
	} {
		s.sync(t, k, stageConfig())
		sink := newSink(t, s.world.Namespace, flow.outside)
		// Something has to track the connection, as kube-proxy's rules do, for it to
		// be taken for an old one.
		s.keep(t, func() error {
			write(t, func(c *nftables.Conn) {
				c.FlushRuleset()
				chain := c.AddChain(&nftables.Chain{
					Table: c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other"}), Name: "forward", Type: nftables.ChainTypeFilter,
					Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
				})
				c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}}})
			})
			return nil
		})
		socket := sink.connect(t, s.pod, netip.MustParseAddr(flow.pod))
		defer socket.Close()
		for _, want := range []string{flow.pod, flow.node} {
			sink.sendBy(t, socket)
			if got := sink.until(t, want); len(got) != 1 {
				t.Errorf("%s received from %v, want only %s", flow.outside, got, want)
			}
			s.keep(t, func() error { _, err := k.Verify(Plan(stageConfig())); return err })
		}
	}
}

// While tables are replaced and keepers restarted, no new connection leaves
// with the pod's address.
func TestNoGap(t *testing.T) {
	s := newStage(t)
	s.sync(t, &Keeper{}, stageConfig())
	at, stop, err := s.world.Echo(netip.MustParseAddrPort("203.0.113.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	done, ended := make(chan struct{}), make(chan error, 1)
	remakes := 0
	go func() {
		ended <- s.node.Do(func() error {
			for n := 0; ; n++ {
				select {
				case <-done:
					return nil
				default:
				}
				c := stageConfig()
				c.GuardIPv4 = n%2 == 0
				k := &Keeper{}
				if _, err := k.Sync(Plan(c)); err != nil {
					return err
				}
				c.IPv6 = n%3 == 0
				if _, err := k.Sync(Plan(c)); err != nil {
					return err
				}
				k.Close()
				remakes++
			}
		})
	}()
	const connections = 500
	gaps := 0
	for range connections {
		source, _, err := s.pod.Ask(netip.Addr{}, at, patience)
		if err != nil {
			t.Error(err)
			break
		}
		if source.String() != "172.30.0.1" {
			gaps++
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if gaps > 0 {
		t.Errorf("%d of %d connections had the pod's source, while the table was replaced %d times", gaps, connections, remakes)
	}
	if remakes < 3 {
		t.Errorf("the table was replaced %d times only", remakes)
	}
}

func TestGuard(t *testing.T) {
	s := newStage(t)
	k := &Keeper{}
	// The state that the guard is for: the loose check wins.
	for key, value := range map[string]string{"all": "2", "vethweb": "1"} {
		if err := s.node.SetSysctl("net/ipv4/conf/"+key+"/rp_filter", value); err != nil {
			t.Fatal(err)
		}
	}
	// The address of another pod of the node, which the loose check lets pass.
	// The world would answer it.
	stolen := netip.MustParseAddr("10.244.1.9")
	if err := s.pod.AddAddress("eth0", stolen.String()+"/32"); err != nil {
		t.Fatal(err)
	}
	sink := newSink(t, s.world.Namespace, "10.244.2.5")
	for _, guarded := range []bool{false, true} {
		c := stageConfig()
		c.GuardIPv4 = guarded
		s.sync(t, k, c)
		// The honest datagram comes behind the other one: who has it knows that
		// the other one will not come any more.
		sink.send(t, s.pod, stolen)
		sink.send(t, s.pod, netip.MustParseAddr("10.244.1.2"))
		got := sink.until(t, "10.244.1.2")
		if passed := len(got) == 2; passed == guarded {
			t.Errorf("guard %t: the world received from %v", guarded, got)
		}
	}
}

// A pod that has no address yet may look for a DHCP server.
func TestGuardLetsBroadcastWithoutAddressPass(t *testing.T) {
	s := newStage(t)
	bare := s.lab.Pod("bare")
	s.wire(t, bare, "vethbare")
	c := stageConfig()
	c.GuardIPv4 = true
	s.sync(t, &Keeper{}, c)
	server := newSink(t, s.node.Namespace, "0.0.0.0")
	err := bare.Do(func() error {
		socket, err := (&net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if e := raw.Control(func(fd uintptr) {
				err = errors.Join(unix.BindToDevice(int(fd), "eth0"), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
			}); e != nil {
				return e
			}
			return err
		}}).ListenPacket(t.Context(), "udp4", "0.0.0.0:0")
		if err != nil {
			return err
		}
		defer socket.Close()
		// The interface transmits only once the kernel has got round to it.
		for deadline := time.Now().Add(patience); ; {
			if _, err = socket.WriteTo([]byte("discover"), &net.UDPAddr{IP: net.IPv4bcast, Port: int(server.port)}); err != nil {
				return err
			}
			from, err := server.next(50 * time.Millisecond)
			if err == nil {
				if from.String() != "0.0.0.0" {
					return fmt.Errorf("received from %s", from)
				}
				return nil
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
				return err
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}
