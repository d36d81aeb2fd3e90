package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers connections to a port one after the other, each with a byte for a
// byte, until it is ended.
func serve(at netip.AddrPort) error {
	listener, address, err := open(unix.SOCK_STREAM, at)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, address); err != nil {
		return fmt.Errorf("binding to %s: %w", at, err)
	}
	const backlog = 128
	if err := unix.Listen(listener, backlog); err != nil {
		return fmt.Errorf("listening on %s: %w", at, err)
	}
	fmt.Println("ready")
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return fmt.Errorf("accepting a connection on %s: %w", at, err)
		}
		// A client may give up; the next one comes all the same.
		if _, err := call(unix.SYS_RECVFROM, fd, 1, 0); err == nil {
			_, _ = call(unix.SYS_SENDTO, fd, 1, unix.MSG_NOSIGNAL)
		}
		unix.Close(fd)
	}
}

// ask reads lines of addresses, connects to each in turn, and answers each line with
// how long they took, in nanoseconds: to connect, to send a byte and receive one, and
// to close.
func ask(lines io.Reader, answers io.Writer) error {
	in := bufio.NewReader(lines)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading addresses: %w", err)
		}
		var targets []netip.AddrPort
		for _, text := range strings.Fields(line) {
			at, err := netip.ParseAddrPort(text)
			if err != nil {
				return fmt.Errorf("parsing address: %w", err)
			}
			targets = append(targets, at)
		}
		took := make([]string, len(targets))
		for i, at := range targets {
			d, err := exchange(at)
			if err != nil {
				return err
			}
			took[i] = fmt.Sprint(d.Nanoseconds())
		}
		if _, err := fmt.Fprintln(answers, strings.Join(took, " ")); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

// exchange is one connection.
func exchange(at netip.AddrPort) (time.Duration, error) {
	begin := time.Now()
	fd, err := connect(unix.SOCK_STREAM, at)
	if err != nil {
		return 0, err
	}
	_, err = call(unix.SYS_SENDTO, fd, 1, unix.MSG_NOSIGNAL)
	if err == nil {
		_, err = call(unix.SYS_RECVFROM, fd, 1, 0)
	}
	unix.Close(fd)
	if err != nil {
		return 0, fmt.Errorf("asking %s: %w", at, err)
	}
	return time.Since(begin), nil
}
