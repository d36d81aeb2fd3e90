//go:build linux

// Command guest is the first process of a machine that tests run on: it
// furnishes the machine, runs the plan and switches the machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/kernels/plan"
)

func main() {
	if os.Getpid() != 1 && os.Getenv(workerVariable) == "" {
		fmt.Fprintln(os.Stderr, "guest: this is a machine's first process and nothing else: it would switch this machine off")
		os.Exit(2)
	}
	if os.Getenv(workerVariable) != "" {
		if err := work(); err != nil {
			fmt.Println("guest:", err) // the console shows it, and the caller the console
		}
		return
	}
	if err := superviseWorker(); err != nil {
		fmt.Println("guest:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // a kernel without power management; nobody boots it again
}

// workerVariable marks the process that does the work.
const workerVariable = "FLATNET_GUEST_WORKER"

// superviseWorker starts the process that does the work and waits for it. In the
// meantime it does what only a first process can: it buries orphans, so that
// tests that wait for a process to be gone do not see its remains for ever.
func superviseWorker() error {
	self, err := os.Executable()
	if err != nil {
		self = "/init" // there is no /proc yet
	}
	worker, err := os.StartProcess(self, []string{self}, &os.ProcAttr{
		Env: append(os.Environ(), workerVariable+"=1"), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("starting the worker: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == worker.Pid {
			return err
		}
	}
}

func work() error {
	text, err := os.ReadFile(plan.Path)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	if err := furnish(p.Modules); err != nil {
		return err
	}
	events, err := open(p.Port)
	if err != nil {
		return err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	events.send(plan.Event{Kernel: unix.ByteSliceToString(name.Release[:])})
	go func() {
		for range time.Tick(plan.Heartbeat) {
			events.send(plan.Event{})
		}
	}()
	for _, run := range p.Run {
		if !execute(run, events) {
			break
		}
	}
	events.send(plan.Event{Done: true})
	return events.drain()
}
