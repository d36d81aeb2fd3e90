// Command load measures how fast a network is between two namespaces, with one
// process in each:
//
//	load meter KIND ADDRESS:PORT CPU WARM-UP WINDOW   listens, and counts
//	load partner KIND ADDRESS:PORT CPU                connects, and never ends by itself
//
// The meter says "ready" once it listens, and at the end how many there were a
// second. KIND is what is counted:
//
//	stream      bytes that arrive on one TCP connection
//	pingpong    round trips of one byte on a TCP connection
//	datagrams   UDP packets that arrive, 64 bytes long with IPv4's header
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

func run(arguments []string) error {
	if len(arguments) < 4 {
		return errors.New("usage: load meter|partner KIND ADDRESS:PORT CPU [WARM-UP WINDOW]")
	}
	k, known := kinds[arguments[1]]
	if !known {
		return fmt.Errorf("%q is not stream, pingpong or datagrams", arguments[1])
	}
	at, err := netip.ParseAddrPort(arguments[2])
	if err != nil {
		return fmt.Errorf("parsing address: %w", err)
	}
	cpu, err := strconv.Atoi(arguments[3])
	if err != nil {
		return fmt.Errorf("parsing CPU: %w", err)
	}
	if err := keepTo(cpu); err != nil {
		return err
	}
	switch {
	case arguments[0] == "partner":
		fd, err := connect(k.socketType, at)
		if err != nil {
			return err
		}
		return k.forever(fd)
	case arguments[0] == "meter" && len(arguments) == 6:
		warmUp, err := time.ParseDuration(arguments[4])
		if err != nil {
			return fmt.Errorf("parsing warm-up: %w", err)
		}
		window, err := time.ParseDuration(arguments[5])
		if err != nil {
			return fmt.Errorf("parsing window: %w", err)
		}
		fd, err := listen(k.socketType, at, func() { fmt.Println("ready") })
		if err != nil {
			return err
		}
		rate, err := k.measure(fd, warmUp, window)
		if err != nil {
			return err
		}
		fmt.Println(rate)
		return nil
	}
	return fmt.Errorf("%q is not meter or partner, or has too few arguments", arguments[0])
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
