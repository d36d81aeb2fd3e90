package main

import (
	"fmt"
	"os"
	"strings"
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
