//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/kernels/plan"
)

// events is the port that the booting machine reads.
type events struct {
	mu   sync.Mutex
	port *os.File
}

// open opens the port, which appears once its driver has found it.
func open(port string) (*events, error) {
	var err error
	for range 100 {
		var fd int
		if fd, err = unix.Open(port, unix.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
			// What is written must arrive as it is, where the port is a terminal.
			if terminal, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
				terminal.Oflag &^= unix.OPOST
				_ = unix.IoctlSetTermios(fd, unix.TCSETS, terminal)
			}
			return &events{port: os.NewFile(uintptr(fd), port)}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, fmt.Errorf("opening %s for the results: %w", port, err)
}

func (e *events) send(event plan.Event) {
	text, err := json.Marshal(event)
	if err != nil {
		panic(err) // of strings and numbers
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = e.port.Write(append(text, '\n')) // nobody else could be told
}

// drain waits until everything has left the machine.
func (e *events) drain() error {
	const tcsbrk = 0x5409 // with 1: tcdrain(3); asm-generic, and no terminal refuses it
	_ = unix.IoctlSetInt(int(e.port.Fd()), tcsbrk, 1)
	return e.port.Close()
}
