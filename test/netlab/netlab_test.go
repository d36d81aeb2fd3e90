package netlab

import (
	"net"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// echo answers UDP datagrams on address in the namespace with the address that
// they came from.
func echo(t *testing.T, space *Namespace, address string) {
	t.Helper()
	err := space.Do(func() error {
		socket, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { socket.Close() })
		go func() {
			buffer := make([]byte, 64)
			for {
				_, from, err := socket.ReadFrom(buffer)
				if err != nil {
					return
				}
				socket.WriteTo([]byte(from.(*net.UDPAddr).AddrPort().Addr().String()), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ask sends a datagram and returns the answer.
func ask(space *Namespace, address string) (string, error) {
	var answer string
	err := space.Do(func() error {
		socket, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		defer socket.Close()
		socket.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := socket.Write([]byte("?")); err != nil {
			return err
		}
		buffer := make([]byte, 64)
		n, err := socket.Read(buffer)
		answer = string(buffer[:n])
		return err
	})
	return answer, err
}

func TestNodesOnOneSegmentAndBehindARouter(t *testing.T) {
	lab := Start(t)
	left, right := lab.Segment("left"), lab.Segment("right")
	a := lab.Node("a", left.Port("172.30.0.1/24", "fd00:30::1/64"))
	b := lab.Node("b", left.Port("172.30.0.2/24", "fd00:30::2/64"))
	c := lab.Node("c", right.Port("172.30.1.1/24", "fd00:31::1/64"))
	lab.Router("r", left.Port("172.30.0.254/24", "fd00:30::fe/64"), right.Port("172.30.1.254/24", "fd00:31::fe/64"))
	for _, route := range []struct {
		node    *Node
		gateway string
	}{{a, "172.30.0.254"}, {a, "fd00:30::fe"}, {c, "172.30.1.254"}, {c, "fd00:31::fe"}} {
		if err := route.node.AddRoute("default", route.gateway); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		server *Node
		listen string
		want   string
	}{
		{b, "172.30.0.2:7000", "172.30.0.1"},
		{b, "[fd00:30::2]:7000", "fd00:30::1"},
		{c, "172.30.1.1:7000", "172.30.0.1"},
		{c, "[fd00:31::1]:7000", "fd00:30::1"},
	} {
		echo(t, c.server.Namespace, c.listen)
		got, err := ask(a.Namespace, c.listen)
		if err != nil || got != c.want {
			t.Errorf("%s saw %q, %v; want %s", c.listen, got, err, c.want)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before, _ := os.ReadDir(namespaceDirectory)
	lab := New()
	segment := lab.Segment("lan")
	lab.Node("a", segment.Port("172.30.0.1/24"))
	gone := lab.Pod("gone")
	if err := unbind(gone.Path); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadDir(namespaceDirectory)
	if len(after) != len(before) {
		t.Errorf("%d namespaces before, %d after", len(before), len(after))
	}
}
