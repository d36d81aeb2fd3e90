package netlab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Transfer sends size random bytes over TCP from one namespace to an address of
// another, which the address belongs to, and returns the source address that
// the receiver saw. It fails if the receiver got other bytes than those sent.
func Transfer(from, to *Namespace, address netip.Addr, size int64, timeout time.Duration) (seen netip.Addr, err error) {
	deadline := time.Now().Add(timeout)
	var listener net.Listener
	err = to.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
		return err
	})
	if err != nil {
		return seen, fmt.Errorf("listening in namespace %s: %w", to.Name, err)
	}
	defer listener.Close()
	listener.(*net.TCPListener).SetDeadline(deadline)
	var client net.Conn
	dialled := make(chan error, 1)
	go func() {
		dialled <- from.Do(func() (err error) {
			client, err = net.DialTimeout("tcp", listener.Addr().String(), timeout)
			return err
		})
	}()
	server, err := listener.Accept()
	if err := errors.Join(err, <-dialled); err != nil {
		return seen, fmt.Errorf("connecting namespaces %s and %s: %w", from.Name, to.Name, err)
	}
	defer client.Close()
	defer server.Close()
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	sent := sha256.New()
	wrote := make(chan error, 1)
	go func() {
		random := rand.NewChaCha8([32]byte{})
		_, err := io.CopyN(io.MultiWriter(client, sent), random, size)
		wrote <- errors.Join(err, client.(*net.TCPConn).CloseWrite())
	}()
	got := sha256.New()
	n, err := io.Copy(got, server)
	if err := errors.Join(err, <-wrote); err != nil {
		return seen, fmt.Errorf("sending %d bytes from namespace %s to %s: %w after %d bytes", size, from.Name, to.Name, err, n)
	}
	if n != size || string(got.Sum(nil)) != string(sent.Sum(nil)) {
		return seen, fmt.Errorf("sending %d bytes from namespace %s to %s: %d bytes came, and they are not those sent", size, from.Name, to.Name, n)
	}
	return server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), nil
}
