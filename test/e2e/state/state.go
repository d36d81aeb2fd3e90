// Package state remembers on disk what a cluster has changed on its machine,
// before it changes it, so that all of it can be taken back by another process
// and after a crash.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// Process is one that the cluster started.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Start is when it began, in clock ticks after the machine's boot: a process
	// with the same PID and another start is somebody else.
	Start uint64 `json:"start"`
}

// Sysctl is a value of the machine that was changed for the cluster.
type Sysctl struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// State is what there is of a cluster.
type State struct {
	// Boot is the boot ID of the machine when the cluster was made; in another
	// boot none of the processes exists.
	Boot      string       `json:"boot"`
	Options   plan.Options `json:"options"`
	Processes []Process    `json:"processes"`
	Sysctls   []Sysctl     `json:"sysctls,omitempty"`
	// Cgroups are names below each cgroup hierarchy.
	Cgroups []string `json:"cgroups,omitempty"`
	// Ready is whether the cluster has come up as a whole.
	Ready bool `json:"ready"`
	// Kubeconfig is the administrator's.
	Kubeconfig string `json:"kubeconfig,omitempty"`

	path string
}

// File is the state's name in the directory of the cluster.
const File = "state.json"

// New makes the state of a new cluster in directory. Fails if there is one.
func New(directory string, options plan.Options) (*State, error) {
	s := &State{Boot: boot(), Options: options, path: filepath.Join(directory, File)}
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is a cluster in %s already (`make cluster-down` removes it)", directory)
	}
	return s, s.Save()
}

// Load reads the state of the cluster in directory; errors.Is fs.ErrNotExist
// where there is none.
func Load(directory string) (*State, error) {
	s := &State{path: filepath.Join(directory, File)}
	raw, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's state: %w", err)
	}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("reading the cluster's state in %s: %w", s.path, err)
	}
	return s, nil
}

// Save writes the state, as a whole or not at all.
func (s *State) Save() error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary := s.path + ".new"
	if err := os.WriteFile(temporary, raw, 0o600); err != nil {
		return fmt.Errorf("writing the cluster's state: %w", err)
	}
	return os.Rename(temporary, s.path)
}

// Started remembers a process; one of the same name before it is forgotten.
func (s *State) Started(name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	s.Forget(name)
	s.Processes = append(s.Processes, Process{Name: name, PID: pid, Start: start})
	return s.Save()
}

// Forget removes a process from the list, without saving that.
func (s *State) Forget(name string) {
	kept := s.Processes[:0]
	for _, p := range s.Processes {
		if p.Name != name {
			kept = append(kept, p)
		}
	}
	s.Processes = kept
}

// Process finds a process by name.
func (s *State) Process(name string) (Process, bool) {
	for _, p := range s.Processes {
		if p.Name == name {
			return p, true
		}
	}
	return Process{}, false
}

// SetSysctl changes a value below /proc/sys for the time of the cluster, if it
// is lower. Equivalent to: `sysctl -w KEY=VALUE`.
func (s *State) SetSysctl(path string, atLeast int) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	old := strings.TrimSpace(string(raw))
	if n, err := strconv.Atoi(old); err != nil || n >= atLeast {
		return err
	}
	change := Sysctl{Path: path, Old: old, New: strconv.Itoa(atLeast)}
	s.Sysctls = append(s.Sysctls, change)
	if err := s.Save(); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(change.New), 0o644)
}

// RestoreSysctls takes back what SetSysctl changed, where nobody has changed it
// since.
func (s *State) RestoreSysctls() error {
	var errs []error
	if s.Boot == boot() {
		for _, c := range s.Sysctls {
			raw, err := os.ReadFile(c.Path)
			if err == nil && strings.TrimSpace(string(raw)) == c.New {
				err = os.WriteFile(c.Path, []byte(c.Old), 0o644)
			}
			errs = append(errs, err)
		}
	}
	s.Sysctls = nil
	return errors.Join(errs...)
}

// Alive tells whether the process of the cluster still runs: the same process,
// not one that got its PID.
func (s *State) Alive(p Process) bool {
	if s.Boot != boot() {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

// startTime is when a process began, and fails if it has ended. A zombie has
// ended.
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading about process %d: %w", pid, err)
	}
	return parseStart(string(raw))
}

// parseStart reads field 22 of /proc/PID/stat. Field 2 is the name in
// parentheses and may contain anything.
func parseStart(stat string) (uint64, error) {
	_, rest, found := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return 0, fmt.Errorf("reading about a process: unexpected %q", stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

func boot() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw))
}
