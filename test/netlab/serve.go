package netlab

import (
	"bufio"
	"fmt"
	"net"
	"testing"
)

// Accept has do called with each connection, in a goroutine of its own, until the listener
// is closed.
func Accept(l net.Listener, do func(net.Conn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go do(c)
		}
	}()
}

// Serve has do called with each connection of TCP to a port of the namespace, in a
// goroutine of its own, until the test ends.
func (n *Namespace) Serve(t testing.TB, port uint16, do func(net.Conn)) {
	t.Helper()
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatalf("listening at port %d in namespace %s: %v", port, n.Name, err)
	}
	t.Cleanup(func() { l.Close() })
	Accept(l, do)
}

// ServeLines answers lines with themselves at a port of the namespace, over TCP, until the
// test ends.
func (n *Namespace) ServeLines(t testing.TB, port uint16) {
	t.Helper()
	n.Serve(t, port, func(c net.Conn) {
		t.Cleanup(func() { c.Close() })
		const longest = 1 << 20
		lines := bufio.NewReaderSize(c, longest)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if _, err := c.Write([]byte(line)); err != nil {
				return
			}
		}
	})
}
