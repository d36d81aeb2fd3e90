// Command peak executes a program with its own standard streams and environment,
// and writes the program's peak memory in bytes to the file $PEAK_FILE. It exists
// because the kernel counts the parent's memory in, until the child has executed its
// program: the peak of a benchmark's child would be that of the benchmark. This
// parent is small enough.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func main() {
	code, err := run(os.Args[1:], os.Getenv("PEAK_FILE"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "peak:", err)
		code = 1
	}
	os.Exit(code)
}

func run(command []string, file string) (int, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return 0, err
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	peak := strconv.FormatInt(usage.Maxrss*1024, 10)
	return cmd.ProcessState.ExitCode(), os.WriteFile(file, []byte(peak), 0o600)
}
