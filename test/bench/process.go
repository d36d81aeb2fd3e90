package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory is in bytes.
type memory float64

func (m memory) String() string { return fmt.Sprintf("%.1f", float64(m)/megabyte) }

// memoryOf returns how much of a process is in memory (VmRSS of proc_pid_status(5)),
// and the most that ever was (VmHWM).
func memoryOf(pid int) (now, most memory, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("asking for memory: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kilobytes); err == nil {
			now = memory(kilobytes * 1024)
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kilobytes); err == nil {
			most = memory(kilobytes * 1024)
		}
	}
	if now == 0 || most == 0 {
		return 0, 0, fmt.Errorf("process %d does not say how much memory it has", pid)
	}
	return now, most, nil
}

// processorTime returns how long a process has run, in user mode and the kernel
// (utime and stime of proc_pid_stat(5)); it is counted in steps of 10 ms.
func processorTime(pid int) (time.Duration, error) { return ticks(pid, 11, 12) }

// processorTimeOfAll is processorTime with that of what the process has executed and
// waited for (cutime and cstime).
func processorTimeOfAll(pid int) (time.Duration, error) { return ticks(pid, 11, 12, 13, 14) }

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
