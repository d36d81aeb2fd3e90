package plugin

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// withPorts is a configuration in which the runtime asks for ports: "8080:80",
// "192.0.2.1:53:5353/udp", "[::]:53:5353/udp".
func withPorts(mappings ...string) map[string]any {
	var all []map[string]any
	for _, text := range mappings {
		m := map[string]any{}
		rest, protocol, given := strings.Cut(text, "/")
		if given {
			m["protocol"] = protocol
		}
		at := strings.LastIndex(rest, ":")
		host, container := rest[:at], rest[at+1:]
		if ip, port, err := net.SplitHostPort(host); err == nil {
			m["hostIP"], host = ip, port
		}
		var numbers [2]int
		fmt.Sscan(host, &numbers[0])
		fmt.Sscan(container, &numbers[1])
		m["hostPort"], m["containerPort"] = numbers[0], numbers[1]
		all = append(all, m)
	}
	return map[string]any{"runtimeConfig": map[string]any{"portMappings": all}}
}

// also joins configurations.
func also(all ...map[string]any) map[string]any {
	merged := map[string]any{}
	for _, c := range all {
		for k, v := range c {
			merged[k] = v
		}
	}
	return merged
}

// addPorts attaches a pod that has ports of the node.
func (s *stage) addPorts(name string, pod *netlab.Namespace, config map[string]any) {
	s.t.Helper()
	if _, err := s.run(call{verb: "ADD", container: name, netns: pod.Path, args: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name, config: config}); err != nil {
		s.t.Fatalf("ADD %s: %v", name, err)
	}
}

// serve answers to who connects to a port of a namespace, whatever address that will
// have, with a name and with the client's address.
func serve(t *testing.T, at *netlab.Namespace, port int, name string) {
	t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	err := at.Do(func() (err error) {
		if listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); packets.Close() })
	answer := func(a net.Addr) []byte {
		return fmt.Appendf(nil, "%s %s", name, netip.MustParseAddrPort(a.String()).Addr().Unmap())
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(answer(c.RemoteAddr()))
			c.Close()
		}
	}()
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(answer(from), from)
		}
	}()
}

// reach connects, and returns who answered and as whom it saw the client; "" where
// nobody did.
func reach(t *testing.T, from *netlab.Namespace, protocol, to string) string {
	t.Helper()
	buffer, n := make([]byte, 100), 0
	err := from.Do(func() error {
		c, err := (&net.Dialer{Timeout: pace.Far()}).Dial(protocol, to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(pace.Far()))
		if protocol == "udp" {
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
		}
		n, err = c.Read(buffer)
		return err
	})
	if err != nil {
		t.Logf("%s %s: %v", protocol, to, err)
		return ""
	}
	return string(buffer[:n])
}

// portStage is a node with a machine outside and pods of which web has ports.
type portStage struct {
	*stage
	outside, web, db *netlab.Namespace
}

func newPortStage(t *testing.T) *portStage {
	s := newStage(t, "10.1.2.0/24", "fd00:1::/64")
	lan := s.lab.Segment("street")
	outside := s.lab.Node("outside", lan.Port("172.30.5.2/24", "fd00:35::2/64"))
	s.node = s.lab.Node("with-ports", lan.Port("172.30.5.1/24", "172.30.5.11/24", "fd00:35::1/64"))
	for _, route := range [][2]string{{"10.1.2.0/24", "172.30.5.1"}, {"fd00:1::/64", "fd00:35::1"}} {
		if err := outside.AddRoute(route[0], route[1]); err != nil {
			t.Fatal(err)
		}
	}
	p := &portStage{stage: s, outside: outside.Namespace, web: s.lab.Pod("web"), db: s.lab.Pod("db")}
	serve(t, p.web, 80, "web")
	serve(t, p.db, 80, "db")
	return p
}

// expect compares who answers, and as whom it sees the client.
func (p *portStage) expect(from *netlab.Namespace, protocol, to, want string) {
	p.t.Helper()
	if got := reach(p.t, from, protocol, to); got != want {
		p.t.Errorf("%s %s: answered by %q, want %q", protocol, to, got, want)
	}
}

// A port of the node leads to the pod from everywhere, and the pod sees who it is as
// far as the answer comes back by the same way.
func TestHostPorts(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, withPorts("8080:80/TCP", "8080:80/udp"))
	p.addPorts("db", p.db, nil)
	for _, protocol := range []string{"tcp", "udp"} {
		p.expect(p.outside, protocol, "172.30.5.1:8080", "web 172.30.5.2")
		p.expect(p.outside, protocol, "172.30.5.11:8080", "web 172.30.5.2")
		p.expect(p.outside, protocol, "[fd00:35::1]:8080", "web fd00:35::2")
		p.expect(p.db, protocol, "172.30.5.1:8080", "web 10.1.2.3")
		p.expect(p.db, protocol, "[fd00:35::1]:8080", "web fd00:1::3")
		p.expect(p.node.Namespace, protocol, "172.30.5.1:8080", "web 172.30.5.1")
		p.expect(p.node.Namespace, protocol, "[fd00:35::1]:8080", "web fd00:35::1")
		// The pod itself, and the node's 127.0.0.1, are seen as the node.
		p.expect(p.web, protocol, "172.30.5.1:8080", "web 172.30.5.1")
		p.expect(p.web, protocol, "[fd00:35::1]:8080", "web fd00:35::1")
		p.expect(p.node.Namespace, protocol, "127.0.0.1:8080", "web 172.30.5.1")
	}
	// The kernel cannot do that for IPv6: it is refused at once.
	if got := reach(t, p.node.Namespace, "tcp", "[::1]:8080"); got != "" {
		t.Errorf("[::1]:8080: %q", got)
	}
	// Other ports of the node, and those of other machines, are left alone.
	p.expect(p.outside, "tcp", "172.30.5.1:80", "")
	serve(t, p.outside, 8080, "outside")
	p.expect(p.db, "tcp", "172.30.5.2:8080", "outside 10.1.2.3")
	p.mustDel("web", p.web.Path)
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "")
	p.mustDel("db", p.db.Path)
	p.checkNothingLeft("DEL of all")
}

// What upstream's tests of portmap have of addresses: all of a family, one, one of
// another family than the pod's, and one that the node does not have.
func TestHostPortsOfAddresses(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, withPorts("0.0.0.0:8001:80", "[::]:8002:80", "172.30.5.11:8003:80", "[fd00:35::1]:8004:80", "127.0.0.1:8005:80", "[fd00:35::9]:8006:80"))
	p.addPorts("db", p.db, withPorts("172.30.5.1:8003:80", "172.30.5.11:8003:80/udp", "0.0.0.0:8002:80"))
	for _, c := range []struct{ to, want string }{
		{"172.30.5.1:8001", "web 172.30.5.2"},
		{"[fd00:35::1]:8001", ""},
		{"172.30.5.1:8002", "db 172.30.5.2"},
		{"[fd00:35::1]:8002", "web fd00:35::2"},
		{"172.30.5.11:8003", "web 172.30.5.2"},
		{"172.30.5.1:8003", "db 172.30.5.2"},
		{"[fd00:35::1]:8003", ""},
		{"[fd00:35::1]:8004", "web fd00:35::2"},
		{"172.30.5.1:8004", ""},
		{"172.30.5.1:8005", ""},
	} {
		p.expect(p.outside, "tcp", c.to, c.want)
	}
	p.expect(p.outside, "udp", "172.30.5.11:8003", "db 172.30.5.2")
	p.expect(p.node.Namespace, "tcp", "127.0.0.1:8005", "web 172.30.5.1")
	p.expect(p.node.Namespace, "tcp", "127.0.0.1:8001", "web 172.30.5.1")
	p.expect(p.node.Namespace, "tcp", "127.0.0.1:8003", "")
	// An address that comes to the node later, as a virtual one does.
	if err := p.node.AddAddress("eth0", "fd00:35::9/64"); err != nil {
		t.Fatal(err)
	}
	p.expect(p.outside, "tcp", "[fd00:35::9]:8006", "web fd00:35::2")
	// Each DEL takes only its own.
	p.mustDel("db", p.db.Path)
	p.expect(p.outside, "tcp", "172.30.5.11:8003", "web 172.30.5.2")
	p.expect(p.outside, "tcp", "172.30.5.1:8003", "")
	p.mustDel("web", "")
	p.checkNothingLeft("DEL of both")
}

// A pod of one family has what there is for that family.
func TestHostPortsOfOneFamily(t *testing.T) {
	for _, c := range []struct{ subnet, reached, unreached, nowhere string }{
		{"10.1.2.0/24", "172.30.5.1:8080", "[fd00:35::1]:8080", "[::]:8081:80"},
		{"fd00:1::/64", "[fd00:35::1]:8080", "172.30.5.1:8080", "0.0.0.0:8081:80"},
	} {
		p := newPortStage(t)
		p.config["ipam"] = map[string]any{"ranges": []any{[]map[string]string{{"subnet": c.subnet}}}}
		p.addPorts("web", p.web, withPorts("8080:80", c.nowhere))
		if got := reach(t, p.outside, "tcp", c.reached); !strings.HasPrefix(got, "web") {
			t.Errorf("%s: %q", c.reached, got)
		}
		p.expect(p.outside, "tcp", c.unreached, "")
		p.mustDel("web", p.web.Path)
		p.checkNothingLeft("DEL")
	}
}

// portmap's own keys.
func TestHostPortsWithPortmapsKeys(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, also(withPorts("8080:80"), map[string]any{"masqAll": true, "markMasqBit": 5, "backend": "iptables"}))
	p.addPorts("db", p.db, also(withPorts("8081:80"), map[string]any{"snat": false}))
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "web 172.30.5.1")
	p.expect(p.outside, "tcp", "[fd00:35::1]:8080", "web fd00:35::1")
	p.expect(p.outside, "tcp", "172.30.5.1:8081", "db 172.30.5.2")
	p.expect(p.web, "tcp", "172.30.5.1:8081", "db 10.1.2.2")
	// Without translation neither the node's 127.0.0.1 nor the pod itself gets there.
	if got := localnet(t, p.node.Namespace, p.attachedAs("db")); got != "0" {
		t.Errorf("route_localnet is %s", got)
	}
}

// attachedAs returns the name of a pod's host interface.
func (s *stage) attachedAs(container string) string {
	s.t.Helper()
	record, ok := attachment.OpenDirectory(s.directory).Get(attachment.Key{Network: "net", ContainerID: container, Interface: "eth0"})
	if !ok {
		s.t.Fatalf("no record of %s", container)
	}
	return record.Wire.Host.Name
}

func localnet(t *testing.T, at *netlab.Namespace, link string) string {
	t.Helper()
	value, err := at.Sysctl("net/ipv4/conf/" + link + "/route_localnet")
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// The way from 127.0.0.1 to a pod is none back: what listens on the node's 127.0.0.1 is
// not reached by a pod, even if it has a route and sends from there (CVE-2020-8558).
func TestHostPortsOpenNothingElse(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, withPorts("8080:80"))
	p.addPorts("db", p.db, nil)
	if web, db := localnet(t, p.node.Namespace, p.attachedAs("web")), localnet(t, p.node.Namespace, p.attachedAs("db")); web != "1" || db != "0" {
		t.Errorf("route_localnet is %s for the pod with ports, %s for the other", web, db)
	}
	secret := listen(t, p.node.Namespace, "127.0.0.1:9000")
	control := listen(t, p.node.Namespace, ":9001")
	for _, pod := range []*netlab.Namespace{p.web, p.db} {
		for _, setting := range []string{"all", "eth0"} {
			if err := pod.SetSysctl("net/ipv4/conf/"+setting+"/route_localnet", "1"); err != nil {
				t.Fatal(err)
			}
		}
		// The pod's own 127.0.0.0/8 out of the way.
		for _, command := range [][]string{
			{"ip", "addr", "flush", "dev", "lo"}, {"ip", "route", "add", "127.0.0.0/8", "via", "169.254.1.1", "dev", "eth0", "onlink"},
		} {
			if _, err := pod.Output(command[0], command[1:]...); err != nil {
				t.Fatal(err)
			}
		}
		source := map[*netlab.Namespace]string{p.web: "10.1.2.2", p.db: "10.1.2.3"}[pod]
		if err := pod.SendAs(address(source), netip.MustParseAddrPort("127.0.0.1:9000"), "secret"); err != nil {
			t.Fatal(err)
		}
		if err := pod.SendAs(address("127.0.0.5"), netip.MustParseAddrPort("172.30.5.1:9001"), "spoofed"); err != nil {
			t.Fatal(err)
		}
		if err := pod.SendAs(address(source), netip.MustParseAddrPort("172.30.5.1:9001"), "control"); err != nil {
			t.Fatal(err)
		}
		if got := control(); got != "control" {
			t.Errorf("the node got %q from %s", got, pod.Name)
		}
	}
	// What the guard let through would be there before what was sent after it.
	if err := p.node.SendAs(address("127.0.0.1"), netip.MustParseAddrPort("127.0.0.1:9000"), "own"); err != nil {
		t.Fatal(err)
	}
	if got := secret(); got != "own" {
		t.Errorf("127.0.0.1:9000 got %q", got)
	}
}

// listen returns what waits for the next datagram to an address.
func listen(t *testing.T, at *netlab.Namespace, address string) (next func() string) {
	t.Helper()
	var packets net.PacketConn
	if err := at.Do(func() (err error) { packets, err = net.ListenPacket("udp", address); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	return func() string {
		buffer := make([]byte, 100)
		_ = packets.SetDeadline(time.Now().Add(pace.Far()))
		n, _, err := packets.ReadFrom(buffer)
		if err != nil {
			return err.Error()
		}
		return string(buffer[:n])
	}
}

// Who comes second to a port is told who has it, and nothing of it is left.
func TestHostPortsThatAreTaken(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, withPorts("8080:80", "172.30.5.1:9090:90/udp", "[fd00:35::1]:7070:80"))
	for _, c := range []struct {
		asked string
		want  []string // nil: it can be had
	}{
		{"8080:81", []string{"pod default/db: host port 8080/tcp is taken by pod default/web", "0.0.0.0:8080/tcp"}},
		{"172.30.5.1:8080:80", []string{"172.30.5.1:8080/tcp is taken by pod default/web"}},
		{"[fd00:35::1]:8080:80", []string{"[fd00:35::1]:8080/tcp is taken by pod default/web"}},
		{"9090:90/udp", []string{"9090/udp is taken by pod default/web", "172.30.5.1:9090/udp"}},
		{"0.0.0.0:9090:90/udp", []string{"9090/udp is taken by pod default/web"}},
		{"7070:80", []string{"7070/tcp is taken by pod default/web", "[fd00:35::1]:7070/tcp"}},
		{"8080:80/udp", nil},
		{"9090:80/tcp", nil},
		{"172.30.5.11:9090:80/udp", nil},
		{"0.0.0.0:7070:80", nil},
		{"[::]:9090:80/udp", nil},
	} {
		_, err := p.run(call{verb: "ADD", container: "db", netns: p.db.Path, args: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=db", config: withPorts("5000:80", c.asked)})
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", c.asked, err)
			}
			p.mustDel("db", p.db.Path)
			continue
		}
		if code(err) != cni.CodeUnavailable {
			t.Errorf("%s: %v", c.asked, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q has no %q", c.asked, err, part)
			}
		}
		p.expect(p.outside, "tcp", "172.30.5.1:5000", "")
	}
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "web 172.30.5.2")
	p.mustDel("web", p.web.Path)
	p.checkNothingLeft("DEL")
}

// Of many at once that want one port one gets it, and all that want others get theirs,
// with their rates. When those that got it go, the others get it while they go.
func TestHostPortsOfManyAtOnce(t *testing.T) {
	p := newPortStage(t)
	const pods = 64
	spaces := make([]*netlab.Namespace, pods)
	for i := range spaces {
		spaces[i] = p.lab.Pod(fmt.Sprint("p", i))
	}
	last := p.lab.Pod("last")
	p.addPorts("last", last, withPorts("1:80"))
	// Two want each of the ports: one of all addresses, one of a single one.
	add := func(i int) error {
		port := fmt.Sprintf("%d:80", 20000+i/2)
		if i%2 == 1 {
			port = "172.30.5.1:" + port
		}
		config := also(both, withPorts(port, fmt.Sprintf("%d:80", 30000+i)))
		c := call{verb: "ADD", container: fmt.Sprint("p", i), netns: spaces[i].Path, config: config}
		result, err := p.repeat(c)
		if err != nil {
			return err
		}
		c.verb, c.config = "CHECK", also(config, map[string]any{"prevResult": result})
		if _, err := p.repeat(c); err != nil {
			t.Errorf("p%d: CHECK: %v", i, err)
		}
		return nil
	}
	del := func(i int) {
		if _, err := p.repeat(call{verb: "DEL", container: fmt.Sprint("p", i), netns: spaces[i].Path}); err != nil {
			t.Errorf("p%d: DEL: %v", i, err)
		}
	}
	errs := make([]error, pods)
	var group sync.WaitGroup
	for i := range spaces {
		group.Go(func() { errs[i] = add(i) })
	}
	group.Wait()
	isTaken := func(err error) bool { return err != nil && strings.Contains(err.Error(), "is taken by") }
	for i := 0; i < pods; i += 2 {
		winner, loser := i, i+1
		if errs[winner] != nil {
			winner, loser = loser, winner
		}
		if errs[winner] != nil || !isTaken(errs[loser]) {
			t.Fatalf("port %d: %v, %v", 20000+i/2, errs[i], errs[i+1])
		}
		group.Go(func() { del(winner) })
		group.Go(func() {
			_, err := pace.Await(pace.Far(), func() error {
				err := add(loser)
				if err != nil && !isTaken(err) {
					t.Errorf("p%d: %v", loser, err)
				}
				return err
			})
			if err != nil {
				t.Errorf("p%d does not get the port that p%d gave back: %v", loser, winner, err)
			}
		})
	}
	group.Wait()
	for i := range spaces { // those of one half once more
		group.Go(func() { del(i) })
	}
	group.Wait()
	p.mustDel("last", last.Path)
	p.checkNothingLeft("DEL of all")
}

// A flow of UDP that was under way before the port led to the pod, to whatever had the
// port until then, comes to the pod with its next packet.
func TestHostPortsEndStaleFlows(t *testing.T) {
	p := newPortStage(t)
	node := listen(t, p.node.Namespace, ":5353")
	var flow net.Conn
	if err := p.outside.Do(func() (err error) { flow, err = net.Dial("udp", "172.30.5.1:5353"); return err }); err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	// Something tracks connections before there are ports.
	if err := p.node.Do(func() error { return (&ports.Table{}).Make() }); err != nil {
		t.Fatal(err)
	}
	if _, err := flow.Write([]byte("early")); err != nil || node() != "early" {
		t.Fatalf("the node is not reached: %v", err)
	}
	ask := func(want string) {
		t.Helper()
		buffer := make([]byte, 100)
		_, err := pace.Await(pace.Far(), func() error {
			if _, err := flow.Write([]byte("x")); err != nil {
				return err
			}
			_ = flow.SetReadDeadline(time.Now().Add(pace.Of(time.Second)))
			n, err := flow.Read(buffer)
			if err == nil && string(buffer[:n]) != want {
				err = fmt.Errorf("answered by %q", buffer[:n])
			}
			return err
		})
		if err != nil {
			t.Errorf("%v, want %q", err, want)
		}
	}
	p.addPorts("web", p.web, withPorts("5353:80/udp"))
	ask("web 172.30.5.2")
	p.mustDel("web", p.web.Path)
	p.addPorts("db", p.db, withPorts("5353:80/udp"))
	ask("db 172.30.5.2")
}

// CHECK says what is missing, and RestorePorts makes it again.
func TestHostPortsAreCheckedAndRestored(t *testing.T) {
	p := newPortStage(t)
	config := withPorts("8080:80", "172.30.5.1:53:80/udp")
	result, err := p.run(call{verb: "ADD", container: "web", netns: p.web.Path, config: config})
	if err != nil {
		t.Fatal(err)
	}
	check := func() error {
		_, err := p.run(call{verb: "CHECK", container: "web", netns: p.web.Path, config: also(config, map[string]any{"prevResult": result})})
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, want string }{
		{"delete element inet flatnet-ports any4 { tcp . 8080 }", "lacks host port 8080/tcp"},
		{"delete element inet flatnet-ports one4 { 172.30.5.1 . udp . 53 }", "lacks host port 172.30.5.1:53/udp"},
		{"delete element inet flatnet-ports turned6 { fd00:1::2 . fd00:1::2 }", "lacks element fd00:1::2 . fd00:1::2"},
		{"flush chain inet flatnet-ports guard", "flatnet-ports guard has other rules"},
		{"add rule inet flatnet-ports output accept", "flatnet-ports output has other rules"},
		{"delete table inet flatnet-ports", "flatnet-ports prerouting is missing"},
		{"flush table inet flatnet-ports", "flatnet-ports guard has other rules"},
	} {
		if _, err := p.node.Output("nft", strings.Fields(c.command)...); err != nil {
			t.Fatal(err)
		}
		if err := check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: CHECK says %v, want %q", c.command, err, c.want)
		}
		repairs, err := p.restorePorts()
		if err != nil || !strings.Contains(strings.Join(repairs, "\n"), c.want) {
			t.Errorf("%s: repaired %q, %v", c.command, repairs, err)
		}
		if err := check(); err != nil {
			t.Errorf("%s: CHECK after the repair: %v", c.command, err)
		}
	}
	if repairs, err := p.restorePorts(); err != nil || len(repairs) > 0 {
		t.Errorf("repaired %q, %v where nothing was wrong", repairs, err)
	}
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "web 172.30.5.2")
}

func (s *stage) restorePorts() (repairs []string, err error) {
	s.t.Helper()
	err = s.node.Do(func() error {
		done, err := (&Plugin{}).RestorePorts(s.t.Context(), &cni.Request{Command: "RESTORE", Version: "1.1.0", Network: "net", Config: s.input(call{})})
		repairs = done.Repairs
		return err
	})
	return repairs, err
}

// A port that leads to a pod which is gone, and of which nobody knows any more, is no
// conflict; and flatnetd takes it away.
func TestHostPortsOfPodsThatAreGone(t *testing.T) {
	p := newPortStage(t)
	lost := func() {
		t.Helper()
		p.addPorts("web", p.web, withPorts("8080:80", "172.30.5.1:9090:80"))
		link := p.attachedAs("web")
		if err := os.RemoveAll(filepath.Join(p.directory, "attachments")); err != nil {
			t.Fatal(err)
		}
		if _, err := p.node.Output("ip", "link", "delete", link); err != nil {
			t.Fatal(err)
		}
	}
	lost()
	p.addPorts("db", p.db, withPorts("8080:80", "9090:80"))
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "db 172.30.5.2")
	p.expect(p.outside, "tcp", "172.30.5.1:9090", "db 172.30.5.2")
	p.mustDel("db", p.db.Path)
	p.mustDel("web", p.web.Path)
	p.checkNothingLeft("DEL of both")

	lost()
	p.addPorts("db", p.db, withPorts("7070:80"))
	repairs, err := p.restorePorts()
	if err != nil || len(repairs) != 3 { // two of IPv4, one of IPv6
		t.Errorf("repaired %q, %v", repairs, err)
	}
	p.expect(p.outside, "tcp", "172.30.5.1:8080", "")
	p.expect(p.outside, "tcp", "172.30.5.1:7070", "db 172.30.5.2")
}

// A NodePort of the same number comes first, as it does with kube-proxy and portmap:
// whoever translates at dstnat does. And what filters forwarded packets sees the pod's
// address and port, and the client's.
func TestHostPortsBesideOthers(t *testing.T) {
	p := newPortStage(t)
	p.addPorts("web", p.web, withPorts("8080:80", "8081:80"))
	p.addPorts("db", p.db, nil)
	for _, f := range []struct{ family, web, db, node, client string }{
		{"ip", "10.1.2.2", "10.1.2.3", "172.30.5.1", "172.30.5.2"},
		{"ip6", "fd00:1::2", "[fd00:1::3]", "[fd00:35::1]", "fd00:35::2"},
	} {
		rules := fmt.Sprintf(`table %[1]s others {
	chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat to %[3]s:80; }
	chain output { type nat hook output priority -100; fib daddr type local tcp dport 8080 dnat to %[3]s:80; }
	chain forward { type filter hook forward priority filter; %[1]s saddr %[4]s %[1]s daddr %[2]s tcp dport 80 reject with tcp reset; }
}`, f.family, f.web, f.db, f.client)
		p.expect(p.outside, "tcp", f.node+":8080", "web "+f.client)
		p.expect(p.outside, "tcp", f.node+":8081", "web "+f.client)
		if _, err := p.node.Output("nft", rules); err != nil {
			t.Fatal(err)
		}
		p.expect(p.outside, "tcp", f.node+":8080", "db "+f.client)
		p.expect(p.node.Namespace, "tcp", f.node+":8080", "db "+strings.Trim(f.node, "[]"))
		p.expect(p.outside, "tcp", f.node+":8081", "")
	}
}
