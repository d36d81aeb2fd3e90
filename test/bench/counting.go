package main

import (
	"net"
	"sync/atomic"
)

// counting is a listener that counts what is written to those who connect.
type counting struct {
	net.Listener
	bytes *atomic.Int64
}

// Accept implements [net.Listener].
func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l.bytes}, err
}

type countingConn struct {
	net.Conn
	bytes *atomic.Int64
}

// Write implements [net.Conn].
func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}
