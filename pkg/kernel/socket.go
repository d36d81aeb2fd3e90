package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// socket is a netlink socket that stays in the network namespace in which it
// was opened, whatever thread uses it later: no thread has to enter a pod's
// namespace to work in it.
type socket struct {
	protocol int
	handles  map[int]*nl.SocketHandle
}

// openSocket opens a netlink socket in a namespace, or in the caller's own
// where the namespace is nil. The thread is back in its own namespace on return.
func openSocket(protocol int, namespace *Namespace) (*socket, error) {
	target := netns.None()
	if namespace != nil {
		target = netns.NsHandle(namespace.fd)
	}
	s, err := nl.GetNetlinkSocketAt(target, netns.None(), protocol)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	// The kernel says in words what it does not like. Kernels before 4.12
	// cannot; the number of the error remains.
	_ = s.SetExtAck(true)
	return &socket{protocol: protocol, handles: map[int]*nl.SocketHandle{protocol: {Socket: s}}}, nil
}

func (s *socket) close() {
	for _, handle := range s.handles {
		handle.Close()
	}
}

// request begins a message of the given type and flags.
func (s *socket) request(message, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(message, flags)
	r.Sockets = s.handles
	return r
}

// execute sends the request and returns the messages of the answer.
func (s *socket) execute(r *nl.NetlinkRequest) ([][]byte, error) {
	return r.Execute(s.protocol, 0)
}

// acknowledge sends the request and waits until the kernel has done it.
func (s *socket) acknowledge(r *nl.NetlinkRequest) error {
	r.Flags |= unix.NLM_F_ACK
	_, err := r.Execute(s.protocol, 0)
	return err
}

// dump sends a dump request. A dump that the kernel says was interrupted by a
// change is taken again; it is never mistaken for a complete one.
func (s *socket) dump(message int, header nl.NetlinkRequestData) ([][]byte, error) {
	var answer [][]byte
	var err error
	for range 10 {
		r := s.request(message, unix.NLM_F_DUMP)
		r.AddData(header)
		if answer, err = s.execute(r); !errors.Is(err, nl.ErrDumpInterrupted) {
			return answer, err
		}
	}
	return nil, err
}
