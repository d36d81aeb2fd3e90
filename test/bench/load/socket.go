package main

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// streamStep is how much is written or read at once, in bytes.
	streamStep = 128 << 10
	// datagramLength makes a packet of 64 bytes with the headers of UDP and IPv4.
	datagramLength = 64 - 8 - 20
)

// buffer is for whatever is sent or received: there is one thread.
var buffer [streamStep]byte

func open(socketType int, at netip.AddrPort) (int, unix.Sockaddr, error) {
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	family := unix.AF_INET6
	if at.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(family, socketType|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("opening socket: %w", err)
	}
	return fd, address, nil
}

// connect returns a socket that is connected to an address.
func connect(socketType int, to netip.AddrPort) (int, error) {
	fd, address, err := open(socketType, to)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, address); err != nil {
		return 0, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return fd, prepare(fd, socketType)
}

// listen calls ready and then returns a socket that what comes to an address can be
// read from; of TCP that of the first connection.
func listen(socketType int, at netip.AddrPort, ready func()) (int, error) {
	fd, address, err := open(socketType, at)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("setting SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, address); err != nil {
		return 0, fmt.Errorf("binding to %s: %w", at, err)
	}
	if socketType == unix.SOCK_DGRAM {
		if err := prepare(fd, socketType); err != nil {
			return 0, err
		}
		ready()
		// Who starts the partner has to get to run.
		for {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err == unix.EINTR {
				continue
			} else if err != nil {
				return fd, err
			}
			return fd, answering(fd)
		}
	}
	if err := unix.Listen(fd, 1); err != nil {
		return 0, fmt.Errorf("listening on %s: %w", at, err)
	}
	ready()
	connection, _, err := unix.Accept(fd)
	if err != nil {
		return 0, fmt.Errorf("accepting a connection on %s: %w", at, err)
	}
	return connection, prepare(connection, socketType)
}

// answering connects a socket to who has sent the first datagram.
func answering(fd int) error {
	_, from, err := unix.Recvfrom(fd, buffer[:], unix.MSG_PEEK)
	if err == nil {
		err = unix.Connect(fd, from)
	}
	if err != nil {
		return fmt.Errorf("connecting to the sender: %w", err)
	}
	return nil
}

func prepare(fd, socketType int) error {
	if socketType == unix.SOCK_DGRAM {
		// Room for what comes while the receiver does not run; it takes root.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil && err != unix.EPERM {
			return fmt.Errorf("setting SO_RCVBUFFORCE: %w", err)
		}
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("setting TCP_NODELAY: %w", err)
	}
	// BBR, which a machine may have for all, paces what it sends by clocks: then it is these
	// that are measured, and not what packets cost. Reno is in every kernel.
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"); err != nil {
		return fmt.Errorf("setting TCP_CONGESTION: %w", err)
	}
	return nil
}

func receiveBytes(fd int) (int, error) { return call(unix.SYS_RECVFROM, fd, streamStep, 0) }

func sendBytes(fd int) error {
	for {
		if _, err := call(unix.SYS_SENDTO, fd, streamStep, unix.MSG_NOSIGNAL); err != nil {
			return err
		}
	}
}

func ping(fd int) (int, error) {
	if _, err := call(unix.SYS_SENDTO, fd, 1, unix.MSG_NOSIGNAL); err != nil {
		return 0, err
	}
	return call(unix.SYS_RECVFROM, fd, 1, 0)
}

func pong(fd int) error {
	for {
		if _, err := call(unix.SYS_RECVFROM, fd, 1, 0); err != nil {
			return err
		}
		if _, err := call(unix.SYS_SENDTO, fd, 1, unix.MSG_NOSIGNAL); err != nil {
			return err
		}
	}
}

// betweenAnswers is how many datagrams come for each that is sent back. Hardly any
// protocol has none, and to who looks at both directions a flow of one alone is none.
const betweenAnswers = 1024

// received counts datagrams: there is one thread.
var received int

// receiveDatagram does not wait, so that the sender never has to wake the receiver,
// which is more work than a packet's way through the kernel. It lets the sender run
// instead, if that is on the same CPU.
func receiveDatagram(fd int) (int, error) {
	_, err := call(unix.SYS_RECVFROM, fd, streamStep, unix.MSG_DONTWAIT)
	switch err {
	case nil:
		if received++; received%betweenAnswers == 1 {
			// A sender that reads nothing refuses nothing either.
			_, err = call(unix.SYS_SENDTO, fd, 1, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
		return 1, err
	case unix.EAGAIN:
		yield()
		return 0, nil
	}
	return 0, err
}

// sendDatagrams lets the receiver run after each handful, if that is on the same CPU.
func sendDatagrams(fd int) error {
	const handful = 64
	for {
		for range handful {
			if _, err := call(unix.SYS_SENDTO, fd, datagramLength, unix.MSG_NOSIGNAL); err != nil {
				return err
			}
		}
		yield()
	}
}

func yield() { syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// call is send(2) or recv(2), without a word to Go's scheduler: there is nothing
// else to be scheduled.
func call(number uintptr, fd, length, flags int) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&buffer)), uintptr(length), uintptr(flags), 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, unix.ECONNRESET // the other side has ended
		}
		return int(n), nil
	}
}
