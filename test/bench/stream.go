package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// streams are TCP connections from one namespace to another that carry as much as
// they can, until they are closed.
type streams struct {
	received atomic.Int64 // bytes
	sockets  []net.Conn
	running  sync.WaitGroup
}

// stream opens so many connections to an address of a namespace.
func stream(from, to *netlab.Namespace, address netip.Addr, connections int) (*streams, error) {
	var listener *net.TCPListener
	err := to.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening at %s: %w", address, err)
	}
	defer listener.Close()
	s := &streams{}
	for range connections {
		var client net.Conn
		err := from.Do(func() (err error) {
			client, err = net.DialTimeout("tcp", listener.Addr().String(), connectPatience)
			return err
		})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("connecting to %s: %w", address, err)
		}
		s.sockets = append(s.sockets, client)
		if err := listener.SetDeadline(time.Now().Add(connectPatience)); err != nil {
			s.close()
			return nil, err
		}
		server, err := listener.Accept()
		if err != nil {
			s.close()
			return nil, fmt.Errorf("accepting at %s: %w", address, err)
		}
		s.sockets = append(s.sockets, server)
		// What waits when they are closed is not sent any more.
		if err := errors.Join(client.(*net.TCPConn).SetLinger(0), server.(*net.TCPConn).SetLinger(0)); err != nil {
			s.close()
			return nil, err
		}
		s.running.Go(func() {
			const piece = 128 << 10
			for data := make([]byte, piece); ; {
				if _, err := client.Write(data); err != nil {
					return
				}
			}
		})
		s.running.Go(func() {
			const piece = 256 << 10
			for data := make([]byte, piece); ; {
				n, err := server.Read(data)
				s.received.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	return s, nil
}

// connectPatience is how long a connection may take on a link that is full.
const connectPatience = 30 * time.Second

func (s *streams) close() {
	for _, c := range s.sockets {
		c.Close()
	}
	s.running.Wait()
}
