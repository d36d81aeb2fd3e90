package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/pace"
)

// program says that this process is to be the program and not its test.
const program = "FLATNET_HOSTILE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(program) != "" {
		os.Unsetenv(program)
		main()
	}
	os.Exit(m.Run())
}

// hostile prepares the program, with a directory of its own for what it writes.
func hostile(t *testing.T, command ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
			t.Errorf("left in its directory: %v, %v", left, err)
		}
	})
	out = new(bytes.Buffer)
	cmd = exec.Command(self, command...)
	cmd.Env = append(os.Environ(), program+"=1", "TMPDIR="+directory, "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func TestItEndsAsTheCommandDoes(t *testing.T) {
	for _, c := range []struct {
		script, prints string
		code           int
	}{
		{"echo hello", "hello\n", 0},
		{"exit 7", "", 7},
		{"kill -KILL $$", "", 128 + int(syscall.SIGKILL)},
	} {
		cmd, out := hostile(t, "sh", "-c", c.script)
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.code || out.String() != c.prints {
			t.Errorf("%s: exit status %d, %v, and printed %q; want %d and %q", c.script, code, err, out, c.code, c.prints)
		}
	}
	cmd, out := hostile(t, "/there/is/no/such/command")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "starting /there/is/no/such/command: ") {
		t.Errorf("no such command: %v, and printed %q", err, out)
	}
}

// TestSignals: what is sent to the program alone reaches the command, which decides.
func TestSignals(t *testing.T) {
	begun := filepath.Join(t.TempDir(), "begun")
	cmd, out := hostile(t, "sh", "-c", "trap 'exit 9' TERM; : > "+begun+"; while :; do sleep 0.01; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, err := pace.Await(time.Minute, func() error {
		_, err := os.Stat(begun)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("SIGTERM: %v\n%s", err, out)
	}
}

// TestTheMachineIsBusy: each part of the load gets on for as long as it is to, and
// then ends.
func TestTheMachineIsBusy(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	before := burnt(t)
	l, err := begin(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = pace.Await(time.Minute, func() error {
		synced, namespaces, loops := l.synced.Load(), l.namespaces.Load(), burnt(t)-before
		if synced < 3 || namespaces < 3 || loops < 100*time.Millisecond {
			return fmt.Errorf("%d times synced, %d namespaces made, %s of processors used", synced, namespaces, loops)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	end()
	if err := l.wait(); err != nil {
		t.Error(err)
	}
}

// burnt is the time that this process has had processors for in user space.
func burnt(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano())
}
