package page

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures depend on, at one moment.
type Machine struct {
	Kernel, Processor string
	Cores             int
	Load              float64 // of the last minute

	// Of all cores since boot: all, those in which nothing ran, and those that went
	// to other machines.
	ticks, idle, stolen float64
}

// Look asks the kernel for the machine's state.
func Look() (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), Processor: processor()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("asking for the load: %w", err)
	}
	if m.Load, err = strconv.ParseFloat(strings.Fields(string(raw))[0], 64); err != nil {
		return m, fmt.Errorf("reading the load: %w", err)
	}
	return m, m.readTicks()
}

// readTicks reads the first line of /proc/stat (proc_stat(5)): user, nice, system,
// idle, iowait, irq, softirq, steal.
func (m *Machine) readTicks() error {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return fmt.Errorf("asking for the time of the cores: %w", err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return fmt.Errorf("reading the time of the cores: %q", line)
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return fmt.Errorf("reading the time of the cores: %w", err)
		}
		m.ticks += ticks
		switch i {
		case 3, 4:
			m.idle += ticks
		case 7:
			m.stolen = ticks
		}
	}
	return nil
}

// String describes the machine in Markdown.
func (m Machine) String() string {
	text := fmt.Sprintf("- Linux %s, %d cores (%s), %s\n- load before: %.2f",
		m.Kernel, m.Cores, m.Processor, runtime.Version(), m.Load)
	if m.Load > 0.25*float64(m.Cores) {
		text += " — the machine was busy with something else, take the figures with care"
	}
	return text + "\n"
}

// Since describes in Markdown what happened on the machine during a run.
func (m Machine) Since(before Machine) string {
	stolen := 100 * (m.stolen - before.stolen) / max(m.ticks-before.ticks, 1)
	return fmt.Sprintf("- time that the hypervisor gave to others while measuring: %.1f %%\n", stolen)
}

// Idle is the share of the time since before in which the cores had nothing to
// do, 0 to 1.
func (m Machine) Idle(before Machine) float64 {
	return (m.idle - before.idle) / max(m.ticks-before.ticks, 1)
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// State says in a sentence how busy the machine was.
func (m Machine) State(after Machine) string {
	text := fmt.Sprintf("Load before: %.2f, after: %.2f.", m.Load, after.Load)
	if m.Load > 0.25*float64(m.Cores) {
		text += " The machine was busy with something else; take the figures with care."
	}
	return text + "\n"
}
