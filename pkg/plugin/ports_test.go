package plugin

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

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
