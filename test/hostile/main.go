// Command hostile runs another command on a machine that is busy with something
// else: a busy loop for each processor, a file that is written and synced all the
// time, and network namespaces that come and go. It ends with that command's exit
// status, or as a shell would with 128 and the number of the signal that ended it.
//
//	go run ./test/hostile go test ./pkg/...
//
// All of it belongs to this process and ends with it, however it ends: the loops
// are its threads, the file has no name, and the namespaces none either.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: hostile COMMAND [ARGUMENT]...")
		os.Exit(2)
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
	}
	os.Exit(code)
}

// run executes a command while the load is there, and returns its exit status. An
// error says that there was no load, or no command.
func run(command []string) (code int, err error) {
	ctx, end := context.WithCancel(context.Background())
	load, err := begin(ctx, runtime.NumCPU())
	if err != nil {
		end()
		return 1, err
	}
	code, err = execute(command)
	end()
	if failure := load.wait(); failure != nil && err == nil {
		// Whatever the command says, it was not under the load that it was to be.
		return 1, failure
	}
	return code, err
}

// execute runs a command and returns its exit status.
func execute(command []string) (code int, err error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The command decides what Ctrl-C means, which it gets from the terminal by
	// itself. What somebody sends to this process alone is passed on.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("starting %s: %w", command[0], err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, is := exit.Sys().(syscall.WaitStatus); is && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
