//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/kernels/plan"
)

// grace is how long a binary may take to end after its own limit: it prints then
// what every goroutine was doing.
const grace = 30 * time.Second

// execute runs a test binary and sends its lines. It is not alive after that if the
// binary's processes do not end when they are killed: then the kernel holds them, and
// whatever else runs would wait for the same locks.
func execute(run plan.Run, events *events) (alive bool) {
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- output(run, func(line string) { events.send(plan.Event{Suite: run.Suite, Line: line}) })
	}()
	ended := plan.Event{Suite: run.Suite, Ended: true}
	select {
	case err := <-done:
		if err != nil {
			ended.Failure = err.Error()
		}
	case <-time.After(run.Limit + 4*grace): // all that output allows for, and as much again
		ended.Hangs = true
		ended.Failure = "the kernel hangs: processes do not end when they are killed"
		showBlocked()
	}
	ended.Took = time.Since(begin)
	events.send(ended)
	return !ended.Hangs
}

// showBlocked makes the kernel print to its console where the tasks are that wait
// for it, and what each processor does: sysrq w and l.
func showBlocked() {
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("8"), 0)
	for _, key := range []string{"w", "l"} {
		_ = os.WriteFile("/proc/sysrq-trigger", []byte(key), 0)
	}
	time.Sleep(grace / 6) // the console is slower than this program
}

func output(run plan.Run, line func(string)) error {
	temporary := filepath.Join("/tmp", filepath.Base(run.Binary))
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	limited, cancel := context.WithTimeout(context.Background(), run.Limit+grace)
	defer cancel()
	cmd := exec.CommandContext(limited, run.Binary, run.Arguments...)
	cmd.Dir = run.Directory
	cmd.Env = append(append(os.Environ(), "TMPDIR="+temporary), run.Variables...)
	// A group of its own, so that nothing that it started outlives it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewReader(read)
		for {
			text, err := lines.ReadString('\n')
			if text != "" {
				line(text)
			}
			if err != nil {
				return
			}
		}
	}()
	err := cmd.Run()
	write.Close()
	<-done
	if limited.Err() != nil {
		return fmt.Errorf("it was killed after %s", run.Limit+grace)
	}
	return err
}
