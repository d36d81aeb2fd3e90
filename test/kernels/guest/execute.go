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

// execute runs a test binary and sends its lines.
func execute(run plan.Run, events *events) {
	begin := time.Now()
	failure := ""
	if err := output(run, func(line string) { events.send(plan.Event{Suite: run.Suite, Line: line}) }); err != nil {
		failure = err.Error()
	}
	events.send(plan.Event{Suite: run.Suite, Ended: true, Failure: failure, Took: time.Since(begin)})
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
