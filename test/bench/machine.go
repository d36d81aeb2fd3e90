package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on, at one moment.
type machine struct {
	kernel, processor string
	cores             int
	peers             string  // version of Debian's plugins
	load              float64 // of the last minute
	ticks, stolen     float64 // of all cores since boot, and how many of them went to other machines
}

func lookAtMachine() (machine, error) {
	m := machine{cores: runtime.NumCPU(), processor: processor(), peers: peerVersion()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	m.kernel = unix.ByteSliceToString(name.Release[:])
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("asking for the load: %w", err)
	}
	if m.load, err = strconv.ParseFloat(strings.Fields(string(raw))[0], 64); err != nil {
		return m, fmt.Errorf("reading the load: %w", err)
	}
	return m, m.readTicks()
}

// readTicks reads the first line of /proc/stat (proc_stat(5)): user, nice, system,
// idle, iowait, irq, softirq, steal.
func (m *machine) readTicks() error {
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
		if i == 7 {
			m.stolen = ticks
		}
	}
	return nil
}

// String describes the machine in Markdown.
func (m machine) String() string {
	text := fmt.Sprintf("- Linux %s, %d cores (%s), %s\n- peers: containernetworking-plugins %s\n- load before: %.2f",
		m.kernel, m.cores, m.processor, runtime.Version(), m.peers, m.load)
	if m.load > 0.25*float64(m.cores) {
		text += " — the machine was busy with something else, take the figures with care"
	}
	return text + "\n"
}

// since describes in Markdown what happened on the machine during a run.
func (m machine) since(before machine) string {
	stolen := 100 * (m.stolen - before.stolen) / max(m.ticks-before.ticks, 1)
	return fmt.Sprintf("- time that the hypervisor gave to others while measuring: %.1f %%\n", stolen)
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

func peerVersion() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins").Output()
	if err != nil {
		return "of unknown version"
	}
	return string(out)
}

// state says in a sentence how busy the machine was.
func (m machine) state(after machine) string {
	text := fmt.Sprintf("Load before: %.2f, after: %.2f.", m.load, after.load)
	if m.load > 0.25*float64(m.cores) {
		text += " The machine was busy with something else; take the figures with care."
	}
	return text + "\n"
}
