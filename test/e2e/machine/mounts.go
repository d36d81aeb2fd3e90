package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kubeletSysctls are values that the kubelet writes and that are not of a
// namespace: they would change the real machine. Files that hold what it wants
// lie over them.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// overlaid are directories of the real machine that a machine sees and changes
// for itself.
var overlaid = []string{"/etc", "/opt", "/usr/local/bin", "/var/lib", "/var/log"}

// onDisk are directories of the machine that have to be on a real file system:
// containerd's snapshots are overlays, which cannot lie on one, and the kubelet
// asks how much room there is.
var onDisk = []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd"}

// hidden are paths of the real machine that a machine shall not see: it would
// take configuration of a container runtime or of a CNI plugin for its own.
// When it is started anew, they are its own.
var hidden = []string{"/etc/cni", "/opt/cni", "/etc/containerd", "/etc/kubernetes", "/var/lib/cni", "/etc/crictl.yaml"}

// mountAll gives the process, which is alone in its mount namespace, the file
// systems of a machine of its own.
func mountAll(spec Spec) error {
	m := mounts{}
	m.mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")

	// Those of this PID namespace, and of this network namespace; the control
	// groups are the real machine's.
	m.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	cgroups := filepath.Join(spec.Directory, "cgroup")
	m.directory(cgroups)
	m.mount("/sys/fs/cgroup", cgroups, "", unix.MS_BIND|unix.MS_REC, "")
	m.mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	m.mount(cgroups, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "")
	m.unmount(cgroups)
	m.mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")

	_, err := os.Stat(filepath.Join(spec.Directory, "overlay"))
	fresh := errors.Is(err, fs.ErrNotExist)
	for _, directory := range overlaid {
		name := strings.ReplaceAll(strings.Trim(directory, "/"), "/", "-")
		upper, work := filepath.Join(spec.Directory, "overlay", name), filepath.Join(spec.Directory, "overlay", name+".work")
		m.directory(upper)
		m.directory(work)
		m.mount("overlay", directory, "overlay", 0, "lowerdir="+directory+",upperdir="+upper+",workdir="+work)
	}
	if fresh {
		for _, path := range hidden {
			m.remove(path)
		}
	}
	for _, directory := range onDisk {
		real := filepath.Join(spec.Directory, "disk", filepath.Base(directory))
		m.directory(real)
		m.directory(directory)
		m.mount(real, directory, "", unix.MS_BIND, "")
	}
	putBack := m.keep(spec)
	m.mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	m.mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	putBack()
	m.directory("/run/lock")

	for sysctl, value := range kubeletSysctls {
		file := filepath.Join("/run/sysctl", strings.ReplaceAll(sysctl, "/", "."))
		m.write(file, value+"\n")
		m.mount(file, filepath.Join("/proc/sys", sysctl), "", unix.MS_BIND, "")
	}
	// The kubelet passes mounts on to pods and back.
	m.mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	return m.err
}

// keep takes the directories that are to stay visible out of the way of mounts
// that hide them, until the function that it returns is called.
func (m *mounts) keep(spec Spec) (putBack func()) {
	aside := func(i int) string { return filepath.Join(spec.Directory, "kept", strconv.Itoa(i)) }
	for i, directory := range spec.Kept {
		m.directory(aside(i))
		m.mount(directory, aside(i), "", unix.MS_BIND, "")
	}
	return func() {
		for i, directory := range spec.Kept {
			m.directory(directory)
			m.mount(aside(i), directory, "", unix.MS_BIND, "")
			m.unmount(aside(i))
		}
	}
}

// mounts does one after the other until the first that fails.
type mounts struct{ err error }

func (m *mounts) do(what string, f func() error) {
	if m.err == nil {
		if err := f(); err != nil {
			m.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

func (m *mounts) mount(source, target, kind string, flags uintptr, data string) {
	m.do(fmt.Sprintf("mounting %s %s on %s", kind, source, target), func() error {
		return unix.Mount(source, target, kind, flags, data)
	})
}

func (m *mounts) unmount(target string) {
	m.do("unmounting "+target, func() error { return unix.Unmount(target, unix.MNT_DETACH) })
}

func (m *mounts) directory(path string) {
	m.do("making directory", func() error { return os.MkdirAll(path, 0o755) })
}

func (m *mounts) remove(path string) {
	m.do("hiding "+path, func() error { return os.RemoveAll(path) })
}

func (m *mounts) write(path, content string) {
	m.directory(filepath.Dir(path))
	m.do("writing file", func() error { return os.WriteFile(path, []byte(content), 0o644) })
}

// writeFiles puts the spec's files, copies and links in their places.
func writeFiles(spec Spec) error {
	for path, content := range spec.Files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		// A link to somewhere else, as /etc/resolv.conf often is, is replaced.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		mode := fs.FileMode(0o644)
		if strings.Contains(content, "PRIVATE KEY") || strings.Contains(content, "client-key-data") {
			mode = 0o600
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	for path, source := range spec.Copies {
		content, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("copying to %s: %w", path, err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("copying %s: %w", source, err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			return fmt.Errorf("copying %s: %w", source, err)
		}
	}
	for path, target := range spec.Links {
		// One of the boot before, or a file of the real machine that it hides.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("linking %s: %w", path, err)
		}
		if err := os.Symlink(target, path); err != nil {
			return fmt.Errorf("linking %s: %w", path, err)
		}
	}
	return nil
}

// writeSysctls sets the spec's values.
// Equivalent to: `sysctl -w net.NAME=VALUE`.
func writeSysctls(spec Spec) error {
	for name, value := range spec.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
			return fmt.Errorf("setting sysctl: %w", err)
		}
	}
	return nil
}
