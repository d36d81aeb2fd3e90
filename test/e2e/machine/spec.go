// Package machine makes machines out of namespaces: one process with network,
// mount, UTS, IPC and PID namespaces of its own, the first in the latter. What
// the machine runs are its children; when it ends, the kernel ends them, and
// removes interfaces and mounts with the namespaces.
//
// [Start] runs the program anew as such a process, and [Main] is what that
// does.
package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Spec is all that a machine is made of.
type Spec struct {
	// Name becomes the host name.
	Name string `json:"name"`
	// Directory is the machine's own on the disk: what its overlays write, logs,
	// the control socket.
	Directory string `json:"directory"`
	// Disk gives the machine file systems of its own. Without it, it shares all
	// with the real machine, as the underlay does, which only forwards.
	Disk bool `json:"disk"`
	// Kept are directories of the real machine that the machine sees even if they
	// are in one that it has for itself, like /tmp.
	Kept []string `json:"kept,omitempty"`
	// Files are written before anything starts, by path; those with private keys for root alone.
	Files map[string]string `json:"files,omitempty"`
	// Copies are files of the real machine that are copied, by path of the copy.
	Copies map[string]string `json:"copies,omitempty"`
	// Links are symbolic links, by path, and what they lead to.
	Links map[string]string `json:"links,omitempty"`
	// Sysctls are of the machine's network namespace, by path below /proc/sys/net,
	// and written before anything starts.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Services run for as long as the machine, in this order of start.
	Services []Service `json:"services,omitempty"`
	// Forward is an address to which the machine passes the connections of the
	// listener that it was started with.
	Forward string `json:"forward,omitempty"`
}

// Service is a program that is started anew whenever it ends.
type Service struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
}

// fileIn is where the spec of a machine is kept.
func fileIn(directory string) string { return filepath.Join(directory, "machine.json") }

// Log is the path of a service's log.
func (s Spec) Log(service string) string { return filepath.Join(s.Directory, "log", service+".log") }

func (s Spec) save() error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.Directory, "log"), 0o755); err != nil {
		return fmt.Errorf("making directory of machine %s: %w", s.Name, err)
	}
	// It holds private keys.
	if err := os.WriteFile(fileIn(s.Directory), raw, 0o600); err != nil {
		return fmt.Errorf("writing what machine %s consists of: %w", s.Name, err)
	}
	return nil
}

// Load reads the spec of a machine that was started before.
func Load(directory string) (Spec, error) {
	var s Spec
	raw, err := os.ReadFile(fileIn(directory))
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("reading what a machine consists of: %w", err)
	}
	return s, nil
}
