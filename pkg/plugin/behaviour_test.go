package plugin

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

func address(text string) netip.Addr { return netip.MustParseAddr(text) }

// seen asks at an address and returns the source that was seen there; where there is
// no way, the test fails.
func seen(t *testing.T, from, at *netlab.Namespace, source, destination netip.Addr) string {
	t.Helper()
	to, stop, err := at.Echo(netip.AddrPortFrom(destination, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	answer, _, err := from.Ask(source, to, pace.Far())
	if err != nil {
		t.Error(err)
		return ""
	}
	return answer.String()
}

// With ipMasq, what leaves the node has the node's address; what goes to other
// pods and to exempt networks keeps the pod's.
func TestMasquerade(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	s.config["ipMasq"] = true
	s.config["nonMasqueradeCIDRs"] = []string{"172.30.0.9/32", "fd00:30::9/128"}
	lan := s.lab.Segment("outside")
	outside := s.lab.Node("outside", lan.Port("172.30.5.2/24", "172.30.0.9/32", "fd00:35::2/64", "fd00:30::9/128"))
	s.node = s.lab.Node("masquerading", lan.Port("172.30.5.1/24", "fd00:35::1/64"))
	a, b := s.lab.Pod("a"), s.lab.Pod("b")
	s.mustAdd("a", a)
	s.mustAdd("b", b)
	for _, route := range [][2]string{{"172.30.0.9/32", "172.30.5.2"}, {"fd00:30::9/128", "fd00:35::2"}} {
		if err := s.node.AddRoute(route[0], route[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, route := range [][2]string{{"10.1.2.0/24", "172.30.5.1"}, {"fd00:1::/64", "fd00:35::1"}} {
		if err := outside.AddRoute(route[0], route[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		at                *netlab.Namespace
		destination, want string
	}{
		{outside.Namespace, "172.30.5.2", "172.30.5.1"},
		{outside.Namespace, "fd00:35::2", "fd00:35::1"},
		{outside.Namespace, "172.30.0.9", "10.1.2.2"},
		{outside.Namespace, "fd00:30::9", "fd00:1::2"},
		{b, "10.1.2.3", "10.1.2.2"},
		{b, "fd00:1::3", "fd00:1::2"},
		{s.node.Namespace, "172.30.5.1", "10.1.2.2"},
	} {
		if got := seen(t, a, c.at, netip.Addr{}, address(c.destination)); got != c.want {
			t.Errorf("%s saw %q, want %s", c.destination, got, c.want)
		}
	}
	// Connections of a pod that is gone are forgotten with it.
	s.mustDel("a", a.Path)
	flows, err := s.node.Netlink().ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Forward.SrcIP.String() == "10.1.2.2" || f.Reverse.SrcIP.String() == "10.1.2.2" {
			t.Errorf("connection of the deleted pod is still tracked: %s", f)
		}
	}
	s.mustDel("b", b.Path)
	s.checkNothingLeft("DEL of both pods")
}

// A pod cannot send from an address that is not its own.
func TestSpoofedSourcesAreDropped(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	pod := s.lab.Pod("a")
	s.mustAdd("a", pod)
	for _, c := range []struct{ own, spoofed, node string }{
		{"10.1.2.2", "10.1.2.77", "172.30.0.1"},
		{"fd00:1::2", "fd00:1::77", "fd00:30::1"},
		{"10.1.2.2", "172.30.0.7", "172.30.0.1"},
		{"fd00:1::2", "fd00:30::7", "fd00:30::1"},
	} {
		spoofed := address(c.spoofed)
		if err := pod.AddAddress("eth0", netip.PrefixFrom(spoofed, spoofed.BitLen()).String()); err != nil {
			t.Fatal(err)
		}
		var server *net.UDPConn
		err := s.node.Do(func() (err error) {
			server, err = net.ListenUDP("udp", &net.UDPAddr{IP: address(c.node).AsSlice()})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		to := server.LocalAddr().(*net.UDPAddr)
		send(t, pod, spoofed, to)
		send(t, pod, address(c.own), to)
		// Datagrams do not overtake each other on this way: the first to
		// come is the first that was let through.
		server.SetReadDeadline(time.Now().Add(pace.Far()))
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 16))
		if err != nil || from.Addr().Unmap() != address(c.own) {
			t.Errorf("%s: the node got a datagram from %s, %v; want only those from %s", c.spoofed, from, err, c.own)
		}
		server.Close()
	}
}

// send sends one datagram from an address of the namespace.
func send(t *testing.T, space *netlab.Namespace, from netip.Addr, to *net.UDPAddr) {
	t.Helper()
	err := space.Do(func() error {
		socket, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, to)
		if err != nil {
			return err
		}
		defer socket.Close()
		_, err = socket.Write([]byte("?"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A route to the next free address belongs to somebody else: that address is
// left out, and the pod gets another.
func TestAddressThatTheHostRoutesElsewhere(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	if err := s.node.AddRoute("10.1.2.2/32", "172.30.0.77"); err != nil {
		t.Fatal(err)
	}
	if got := addressesOf(s.mustAdd("a", s.lab.Pod("a"))); got[0] != "10.1.2.3" {
		t.Errorf("got %v, want 10.1.2.3", got)
	}
	_, err := s.run(call{verb: "ADD", container: "b", netns: s.lab.Pod("b").Path, args: "IP=10.1.2.2"})
	if err == nil || !strings.Contains(err.Error(), "10.1.2.2") || code(err) != cni.CodeKernel {
		t.Errorf("asking for the address that is in use: %v", err)
	}
	s.mustDel("a", "")
	s.checkNothingLeft("a conflict")
}

// Two keys whose host interfaces would have the same name.
func TestNamesThatCollide(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	a := attachment.Key{Network: "net", ContainerID: "a", Interface: "eth0"}
	// Another attachment has the name that a would get.
	other := attachment.Key{Network: "net", ContainerID: "other", Interface: "eth0"}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a.HostInterface("veth", 0), Group: kernel.Group}, PeerName: "peer"}
	if err := s.node.Netlink().LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	if err := s.node.Netlink().LinkSetAlias(pair, other.Alias("")); err != nil {
		t.Fatal(err)
	}
	pod := s.lab.Pod("a")
	result := s.mustAdd("a", pod)
	if got, want := result.Interfaces[0].Name, a.HostInterface("veth", 1); got != want {
		t.Errorf("host interface is %s, want %s", got, want)
	}
	// Without its record, too, DEL finds the right one.
	if err := os.RemoveAll(filepath.Join(s.directory, "attachments")); err != nil {
		t.Fatal(err)
	}
	s.mustDel("a", "")
	if _, err := s.node.Netlink().LinkByName(a.HostInterface("veth", 0)); err != nil {
		t.Errorf("the other attachment's interface: %v", err)
	}
	if _, err := s.node.Netlink().LinkByName(a.HostInterface("veth", 1)); err == nil {
		t.Error("the attachment's own interface is left")
	}
}

// A node that another plugin served is taken over with pods running: their DEL
// removes interface and reservation, but never another pod's interface.
func TestPodsOfAnotherPluginCanBeDeleted(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	records := filepath.Join(t.TempDir(), "networks")
	s.config["ipam"] = map[string]any{"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": records}
	if err := os.MkdirAll(filepath.Join(records, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := func(container, ip string) *netlab.Namespace {
		pod := s.lab.Pod(container)
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "foreign-" + container}, PeerName: "eth0", PeerNamespace: netlink.NsFd(pod.FD())}
		if err := s.node.Netlink().LinkAdd(pair); err != nil {
			t.Fatal(err)
		}
		if err := pod.AddAddress("eth0", ip+"/24"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(records, "net", ip), []byte(container+"\r\neth0"), 0o600); err != nil {
			t.Fatal(err)
		}
		return pod
	}
	foreign("a", "10.1.2.2")
	b := foreign("b", "10.1.2.3")
	if got := addressesOf(s.mustAdd("c", s.lab.Pod("c"))); got[0] != "10.1.2.4" {
		t.Errorf("a new pod got %v beside 10.1.2.2 and 10.1.2.3", got)
	}
	// The runtime mixes the namespaces up.
	s.mustDel("a", b.Path)
	if _, err := b.Netlink().LinkByName("eth0"); err != nil {
		t.Errorf("DEL of a removed b's interface: %v", err)
	}
	if _, err := os.Stat(filepath.Join(records, "net", "10.1.2.2")); err == nil {
		t.Error("DEL of a did not release its address")
	}
	s.mustDel("b", b.Path)
	if _, err := b.Netlink().LinkByName("eth0"); err == nil {
		t.Error("DEL of b left its interface")
	}
}

// The configuration was spoiled after ADD: pods can still be deleted.
func TestDelGetsOverASpoiledConfiguration(t *testing.T) {
	for name, spoiled := range map[string]map[string]any{
		"range":     {"ipam": map[string]any{"ranges": [][]map[string]string{{{"subnet": "10.1.2.0/240"}}}}},
		"no ipam":   {"ipam": nil},
		"mtu":       {"mtu": "much"},
		"prefix":    {"hostInterfacePrefix": "a/b"},
		"log level": {"logLevel": "loud"},
		"ipMasq":    {"ipMasq": "perhaps"},
		"result":    {"prevResult": map[string]any{"cniVersion": "9.9.9"}},
		"other ipam": {"ipam": map[string]any{"type": "host-local", "dataDir": "/run/other-place",
			"subnet": "10.9.0.0/24"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, "10.1.2.0/24")
			s.mustAdd("a", s.lab.Pod("a"))
			if _, err := s.run(call{verb: "DEL", container: "a", config: spoiled, args: "nonsense"}); err != nil {
				t.Error(err)
			}
			s.checkNothingLeft("DEL with a spoiled configuration")
		})
	}
}

// A result that came before in the chain is passed on.
func TestPreviousResultIsKept(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	result, err := s.run(call{verb: "ADD", container: "a", netns: s.lab.Pod("a").Path, config: map[string]any{"prevResult": map[string]any{
		"cniVersion": "1.1.0", "interfaces": []any{map[string]any{"name": "first", "sandbox": "/run/netns/x"}},
		"ips": []any{map[string]any{"address": "192.0.2.1/24", "interface": 0}},
		"dns": map[string]any{"nameservers": []string{"192.0.2.53"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Interfaces) != 3 || result.Interfaces[0].Name != "first" || result.Interfaces[2].Name != "eth0" {
		t.Errorf("interfaces %v", result.Interfaces)
	}
	if len(result.IPs) != 2 || *result.IPs[1].Interface != 2 || result.DNS.Nameservers[0] != "192.0.2.53" {
		t.Errorf("result %v", result)
	}
}

// What the pod's interfaces look like.
func TestInterfaceProperties(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	s.config["mtu"], s.config["hostInterfacePrefix"] = 1280, "pod-"
	pod := s.lab.Pod("a")
	result, err := s.run(call{
		verb: "ADD", container: "a", netns: pod.Path, args: "K8S_POD_NAME=web-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;X=Y",
		config: map[string]any{"runtimeConfig": map[string]any{"mac": "0a:0b:0c:0d:0e:0f"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	host, err := s.node.Netlink().LinkByName(result.Interfaces[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := pod.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	h, i := host.Attrs(), inside.Attrs()
	if !strings.HasPrefix(h.Name, "pod-") || len(h.Name) != 15 || h.Alias != "flatnet net/a/eth0 shop/web-1" || h.Group != kernel.Group || h.MTU != 1280 {
		t.Errorf("host interface %s, alias %q, group %d, mtu %d", h.Name, h.Alias, h.Group, h.MTU)
	}
	if i.HardwareAddr.String() != "0a:0b:0c:0d:0e:0f" || i.MTU != 1280 || result.Interfaces[1].Mac != "0a:0b:0c:0d:0e:0f" {
		t.Errorf("pod's interface has MAC address %s, mtu %d", i.HardwareAddr, i.MTU)
	}
}

// STATUS distinguishes no addresses from a node that does not forward.
func TestStatus(t *testing.T) {
	s := newStage(t, "10.1.2.0/30")
	if _, err := s.run(call{verb: "STATUS"}); err != nil {
		t.Errorf("at first: %v", err)
	}
	s.mustAdd("a", s.lab.Pod("a"))
	if _, err := s.run(call{verb: "STATUS"}); code(err) != 50 || !strings.Contains(err.Error(), "10.1.2.2") {
		t.Errorf("with the last address gone: %v", err)
	}
	s.config["ipam"] = map[string]any{"subnet": "10.1.2.0/24"}
	if err := s.node.SetSysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(call{verb: "STATUS"}); code(err) != 51 || !strings.Contains(err.Error(), "net.ipv4.ip_forward") {
		t.Errorf("with forwarding off: %v", err)
	}
}

// A gateway that is a router outside stays it: the node does not answer for it.
func TestGatewayOfTheUnderlayIsLeftAlone(t *testing.T) {
	s := newStage(t)
	s.config["ipam"] = map[string]any{"subnet": "172.30.0.0/24", "rangeStart": "172.30.0.100", "gateway": "172.30.0.254"}
	s.mustAdd("a", s.lab.Pod("a"))
	routes, err := s.node.Netlink().RouteGet(address("172.30.0.254").AsSlice())
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := s.node.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if routes[0].LinkIndex != eth0.Attrs().Index {
		t.Errorf("the node reaches the router by %v", routes)
	}
}

// Somebody made a namespace a node, and left its lo down: IPv6 routes go by lo, and
// pods have to reach the gateway of either family nevertheless.
func TestLoopbackThatIsDown(t *testing.T) {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	h := s.node.Netlink()
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetDown(lo); err != nil {
		t.Fatal(err)
	}
	pod := s.lab.Pod("a")
	result := s.mustAdd("a", pod)
	for _, ip := range result.IPs {
		ping, err := pod.Ping(address(ip.Gateway.String()), 10*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pace.Await(pace.Far(), func() error {
			echoes, err := ping.Echoes()
			if err == nil && echoes.Answered == 0 {
				err = fmt.Errorf("%d sent, none answered", echoes.Sent)
			}
			return err
		})
		if _, late := ping.Stop(0); err != nil || late != nil {
			t.Errorf("pod to the gateway %s: %v, %v", ip.Gateway, err, late)
		}
	}
	if _, err := s.run(call{verb: "CHECK", container: "a", netns: pod.Path, config: map[string]any{"prevResult": result}}); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	s.mustDel("a", pod.Path)
	s.checkNothingLeft("DEL")
}

// A log file gets a line for each verb, with the pod's name.
func TestLogFile(t *testing.T) {
	s := newStage(t, "10.1.2.0/24")
	file := filepath.Join(t.TempDir(), "flatnet.log")
	s.config["logFile"], s.config["logLevel"] = file, "info"
	pod := s.lab.Pod("a")
	if _, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"}); err != nil {
		t.Fatal(err)
	}
	_, err := s.run(call{verb: "ADD", container: "a", netns: pod.Path, args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"})
	if code(err) != cni.CodeExists || !strings.HasPrefix(err.Error(), "pod shop/web: ") {
		t.Errorf("second ADD: %v", err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=INFO msg=done verb=ADD network=net container=a interface=eth0 pod=shop/web", "level=ERROR msg=failed verb=ADD"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("log lacks %q:\n%s", want, raw)
		}
	}
}

// A pod whose interface vanished without DEL, on a node where its namespace's
// number is in use again, is recognised once its ADD must be over.
func TestVanishedPodsAreCollected(t *testing.T) {
	s := newStage(t, "10.1.2.0/30") // one address
	pod := s.lab.Pod("a")
	s.mustAdd("a", pod)
	key := attachment.Key{Network: "net", ContainerID: "a", Interface: "eth0"}
	if err := pod.Netlink().LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	b := s.lab.Pod("b")
	if _, err := s.run(call{verb: "ADD", container: "b", netns: b.Path}); code(err) != cni.CodeExhausted {
		t.Errorf("while a's namespace exists and its ADD may be under way: %v", err)
	}
	if _, err := s.run(call{verb: "GC"}); err != nil {
		t.Error(err)
	}
	if _, recorded := attachment.OpenDirectory(s.directory).Get(key); !recorded {
		t.Error("GC without a list removed a young attachment")
	}
	s.age(key)
	s.mustAdd("b", b)
	if _, err := s.run(call{verb: "GC"}); err != nil {
		t.Error(err)
	}
	if _, recorded := attachment.OpenDirectory(s.directory).Get(key); recorded {
		t.Error("GC without a list left the vanished attachment")
	}
	s.mustDel("b", "")
	s.checkNothingLeft("collection")
}

// age makes an attachment an hour old.
func (s *stage) age(key attachment.Key) {
	s.t.Helper()
	directory := attachment.OpenDirectory(s.directory)
	record, recorded := directory.Get(key)
	if !recorded {
		s.t.Fatalf("no record of %s", key)
	}
	record.Since = record.Since.Add(-time.Hour)
	if err := directory.Put(record); err != nil {
		s.t.Fatal(err)
	}
	hourAgo := unix.NsecToTimeval(time.Now().Add(-time.Hour).UnixNano())
	owners, err := filepath.Glob(filepath.Join(s.directory, "ipam", "net", ".flatnet", "owners", "*"))
	if err != nil || len(owners) == 0 {
		s.t.Fatalf("no reservations: %v", err)
	}
	for _, owner := range owners {
		if err := unix.Lutimes(owner, []unix.Timeval{hourAgo, hourAgo}); err != nil {
			s.t.Fatal(err)
		}
	}
}
