//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts are what a machine has that tests may look at. A kernel may lack some.
var mounts = []struct {
	at, kind, options string
	optional          bool
}{
	{"/proc", "proc", "", false},
	{"/sys", "sysfs", "", false},
	{"/dev", "devtmpfs", "", false},
	{"/dev/pts", "devpts", "", true},
	{"/dev/shm", "tmpfs", "mode=1777", false},
	{"/run", "tmpfs", "mode=0755", false},
	{"/tmp", "tmpfs", "mode=1777", false},
	{"/sys/fs/cgroup", "cgroup2", "", true},
	{"/sys/fs/bpf", "bpf", "", true},
	{"/sys/kernel/tracing", "tracefs", "", true},
}

// furnish makes the machine fit for use.
func furnish(modules []string) error {
	for name, value := range map[string]string{
		"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		err := os.MkdirAll(m.at, 0o755)
		if err == nil {
			err = unix.Mount(m.kind, m.at, m.kind, 0, m.options)
		}
		if err != nil && !m.optional {
			return fmt.Errorf("mounting %s on %s: %w", m.kind, m.at, err)
		}
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	for _, module := range modules {
		// A kernel may have it built in, or not at all: the tests see which.
		_ = exec.Command("modprobe", "-q", module).Run()
	}
	if output, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bringing lo up: %w: %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}
