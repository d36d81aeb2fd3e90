// Command load measures how fast a network is between two namespaces, with one
// process in each:
//
//	load meter KIND ADDRESS:PORT CPU WARM-UP WINDOW   listens, and counts
//	load partner KIND ADDRESS:PORT CPU                connects, and never ends by itself
//	load serve ADDRESS:PORT CPU                       listens, and answers each connection's byte with one
//	load ask CPU                                      connects to what it is told, and says how long that takes
//
// The meter says "ready" once it listens, and at the end how many there were a
// second. KIND is what is counted:
//
//	stream      bytes that arrive on one TCP connection
//	pingpong    round trips of one byte on a TCP connection
//	datagrams   UDP packets that arrive, 64 bytes long with IPv4's header
//
// Who asks reads lines of addresses from standard input, and answers each line with
// the nanoseconds that a new connection to each address took: to connect, send a
// byte, receive one and close.
//
// Each process keeps to one CPU, in real time where it may, and makes system calls
// itself: in what Go has for sockets, its scheduler and poller would be measured too.
package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // there is no garbage
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// kind is one sort of load, from both sides.
type kind struct {
	socketType int
	// once does one step of the meter's and returns what it adds to the count.
	once func(fd int) (int, error)
	// forever is the partner's side; it ends with an error.
	forever func(fd int) error
}

var kinds = map[string]kind{
	"stream":    {unix.SOCK_STREAM, receiveBytes, sendBytes},
	"pingpong":  {unix.SOCK_STREAM, ping, pong},
	"datagrams": {unix.SOCK_DGRAM, receiveDatagram, sendDatagrams},
}

const usage = "usage: load meter|partner KIND ADDRESS:PORT CPU [WARM-UP WINDOW] | load serve ADDRESS:PORT CPU | load ask CPU"

func run(arguments []string) error {
	role, rest := "", arguments
	if len(rest) > 0 {
		role, rest = rest[0], rest[1:]
	}
	switch {
	case role == "meter" && len(rest) == 5 || role == "partner" && len(rest) == 3:
		k, known := kinds[rest[0]]
		if !known {
			return fmt.Errorf("%q is not stream, pingpong or datagrams", rest[0])
		}
		at, err := place(rest[1], rest[2])
		if err != nil {
			return err
		}
		if role == "partner" {
			return k.partner(at)
		}
		return k.meter(at, rest[3], rest[4])
	case role == "serve" && len(rest) == 2:
		at, err := place(rest[0], rest[1])
		if err != nil {
			return err
		}
		return serve(at)
	case role == "ask" && len(rest) == 1:
		if err := keepToText(rest[0]); err != nil {
			return err
		}
		return ask(os.Stdin, os.Stdout)
	}
	return errors.New(usage)
}

// place parses an address and a CPU, and keeps to that.
func place(address, cpu string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return at, fmt.Errorf("parsing address: %w", err)
	}
	return at, keepToText(cpu)
}

func keepToText(cpu string) error {
	number, err := strconv.Atoi(cpu)
	if err != nil {
		return fmt.Errorf("parsing CPU: %w", err)
	}
	return keepTo(number)
}

// partner connects, and never ends by itself.
func (k kind) partner(at netip.AddrPort) error {
	fd, err := connect(k.socketType, at)
	if err != nil {
		return err
	}
	return k.forever(fd)
}

// meter listens, and says how many there were a second.
func (k kind) meter(at netip.AddrPort, warmUp, window string) error {
	before, err := time.ParseDuration(warmUp)
	if err != nil {
		return fmt.Errorf("parsing warm-up: %w", err)
	}
	during, err := time.ParseDuration(window)
	if err != nil {
		return fmt.Errorf("parsing window: %w", err)
	}
	fd, err := listen(k.socketType, at, func() { fmt.Println("ready") })
	if err != nil {
		return err
	}
	rate, err := k.measure(fd, before, during)
	if err != nil {
		return err
	}
	fmt.Println(rate)
	return nil
}

// keepTo has the thread run on one CPU, and before everybody else there: what the
// machine does besides is no part of the measurement. Where that takes rights that
// are missing, it is left out.
func keepTo(cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("keeping to CPU %d: %w", cpu, err)
	}
	realTime := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, realTime, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("asking for real-time priority: %w", err)
	}
	return nil
}

// measure counts in a window of time that begins after a warm-up, which begins with
// the first that arrives. It returns how many there were a second.
func (k kind) measure(fd int, warmUp, window time.Duration) (float64, error) {
	if _, err := k.count(fd, 0); err != nil {
		return 0, fmt.Errorf("waiting for the partner: %w", err)
	}
	if _, err := k.count(fd, warmUp); err != nil {
		return 0, fmt.Errorf("warming up: %w", err)
	}
	begin := time.Now()
	n, err := k.count(fd, window)
	if err != nil {
		return 0, fmt.Errorf("measuring: %w", err)
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// count takes steps for so long, at least one that counts.
func (k kind) count(fd int, during time.Duration) (int, error) {
	const stepsBetweenLooks = 16 // at the clock
	const patience = 5 * time.Second
	total := 0
	for begin := time.Now(); ; {
		for range stepsBetweenLooks {
			n, err := k.once(fd)
			if err != nil {
				return total, err
			}
			total += n
		}
		switch passed := time.Since(begin); {
		case passed > during && total > 0:
			return total, nil
		case passed > during+patience:
			return 0, fmt.Errorf("nothing arrived for %s", passed)
		}
	}
}
