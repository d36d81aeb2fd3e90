package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const cgroups = "/sys/fs/cgroup"

// hierarchies are the roots of all control group hierarchies: one for each
// controller in version 1, and one for all in version 2.
func hierarchies() (roots []string, unified bool, err error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, true, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, false, fmt.Errorf("looking for control groups: %w", err)
	}
	for _, e := range entries {
		// Links are other names of one hierarchy: cpu and cpuacct of cpu,cpuacct.
		if e.IsDir() {
			roots = append(roots, filepath.Join(cgroups, e.Name()))
		}
	}
	return roots, false, nil
}

// makeCgroup makes the control group that a kubelet takes for its root, in
// every hierarchy.
func makeCgroup(name string) error {
	roots, unified, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		group := filepath.Join(root, name)
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making control group: %w", err)
		}
		if unified {
			if err := delegate(root, group); err != nil {
				return err
			}
		}
		// A new cpuset is empty, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), value, 0o644)
			}
			if err != nil {
				return fmt.Errorf("setting %s of control group %s: %w", file, group, err)
			}
		}
	}
	return nil
}

// delegate makes the controllers of version 2 available below groups.
func delegate(groups ...string) error {
	for _, group := range groups {
		raw, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("reading controllers of control group: %w", err)
		}
		for _, controller := range strings.Fields(string(raw)) {
			if err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
				return fmt.Errorf("delegating %s to %s: %w", controller, group, err)
			}
		}
	}
	return nil
}

// removeCgroup removes a control group whose processes have ended, with those
// below, from every hierarchy. Equivalent to: `find … -depth -type d -exec rmdir {} +`.
func removeCgroup(name string) error {
	roots, _, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		// A process counts for a moment after its end.
		err := Until(context.Background(), 10*time.Second, "control group "+name+" to be empty", func() error {
			return removeTree(filepath.Join(root, name))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func removeTree(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing control group: %w", err)
	}
	return nil
}
