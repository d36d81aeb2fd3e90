// Package processor reads how much of the processors a process has had.
package processor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Time returns how long a process has run, in user mode and the kernel
// (utime and stime of proc_pid_stat(5)); it is counted in steps of 10 ms.
func Time(pid int) (time.Duration, error) { return ticks(pid, 11, 12) }

// TimeOfAll is Time with that of what the process has executed and
// waited for (cutime and cstime).
func TimeOfAll(pid int) (time.Duration, error) { return ticks(pid, 11, 12, 13, 14) }

// ticks adds up fields of proc_pid_stat(5), counted from the one after the name.
func ticks(pid int, numbers ...int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("asking for processor time: %w", err)
	}
	const ticksPerSecond = 100
	// The name in parentheses may have anything in it.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var total time.Duration
	for _, n := range numbers {
		if n >= len(fields) {
			return 0, fmt.Errorf("reading processor time: %q", raw)
		}
		count, err := strconv.Atoi(fields[n])
		if err != nil {
			return 0, fmt.Errorf("reading processor time: %w", err)
		}
		total += time.Duration(count) * time.Second / ticksPerSecond
	}
	return total, nil
}
