package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the first process of a machine, if the program's arguments say that
// it is one, and does not return then.
func Main() {
	if len(os.Args) != 3 || os.Args[0] != "flatnet-cluster" || os.Args[1] != command {
		return
	}
	goOn, report := os.NewFile(goFD, "go"), os.NewFile(reportFD, "report")
	unix.CloseOnExec(goFD)
	unix.CloseOnExec(reportFD)
	// Whoever started this remembers it now, and connects the network.
	if text, _ := io.ReadAll(goOn); string(text) != begin {
		os.Exit(1)
	}
	goOn.Close()
	err := run(os.Args[2], func() {
		fmt.Fprintln(report, begun)
		report.Close()
	})
	fmt.Fprintln(report, err)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// run makes the machine and stays until it is told to end.
func run(directory string, ready func()) error {
	spec, err := Load(directory)
	if err != nil {
		return err
	}
	// The first process of a PID namespace gets only signals that it asks for,
	// and SIGKILL. A closed standard output is no reason to end.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return fmt.Errorf("setting host name: %w", err)
	}
	if spec.Disk {
		if err := mountAll(spec); err != nil {
			return err
		}
	}
	if err := writeFiles(spec); err != nil {
		return err
	}
	if err := writeSysctls(spec); err != nil {
		return err
	}
	if spec.Forward != "" {
		unix.CloseOnExec(listenerFD)
		listener, err := net.FileListener(os.NewFile(listenerFD, "listener"))
		if err != nil {
			return fmt.Errorf("taking over listener: %w", err)
		}
		go forward(listener, spec.Forward)
	}
	supervisor := newSupervisor(spec)
	go supervisor.reap()
	if err := supervisor.listen(); err != nil {
		return err
	}
	for _, service := range spec.Services {
		if err := supervisor.start(service.Name); err != nil {
			return err
		}
	}
	ready()
	<-ctx.Done()
	return errors.New("told to end")
}

// forward passes each connection on to address. The listener belongs to the
// network namespace that it was made in: this is how a program outside of the
// machine reaches it, although no packet does.
func forward(listener net.Listener, address string) {
	for {
		outside, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accepting connection:", err)
			return
		}
		go func() {
			defer outside.Close()
			inside, err := net.Dial("tcp", address)
			if err != nil {
				return // the other side sees a closed connection, and tries again
			}
			defer inside.Close()
			done := make(chan struct{}, 2)
			pass := func(to, from net.Conn) {
				io.Copy(to, from)
				if tcp, is := to.(*net.TCPConn); is {
					tcp.CloseWrite()
				}
				done <- struct{}{}
			}
			go pass(inside, outside)
			go pass(outside, inside)
			<-done
			<-done
		}()
	}
}
