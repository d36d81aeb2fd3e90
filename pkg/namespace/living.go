package namespace

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Living answers whether network namespaces still exist. It looks at the whole
// machine once, at the first question that the path alone does not answer.
type Living struct {
	once sync.Once
	used map[uint64]bool
	err  error
}

// Gone reports whether a namespace provably does not exist any more: it is not
// at its path, no process is in it, and no mount holds it. A doubt is a no.
func (l *Living) Gone(path string, id Identity) bool {
	var stat unix.Stat_t
	if path != "" && unix.Stat(path, &stat) == nil && stat.Ino == id.Inode && stat.Dev == id.Device {
		return false
	}
	l.once.Do(func() { l.used, l.err = namespacesInUse() })
	return l.err == nil && id.Inode != 0 && !l.used[id.Inode]
}

// namespacesInUse returns the inodes of the network namespaces that a process
// is in, or that are bound to a path in some process's mount namespace.
func namespacesInUse() (map[uint64]bool, error) {
	used := map[uint64]bool{}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(processes) == 0 {
		return nil, fmt.Errorf("listing processes: none to be seen in /proc (%v)", err)
	}
	mounts := map[string]bool{}
	for _, process := range processes {
		tasks, _ := filepath.Glob(process + "/task/[0-9]*/ns/net")
		for _, task := range tasks {
			target, err := readlink(task)
			if err != nil {
				return nil, err
			}
			if inode, ok := namespaceInode(target); ok {
				used[inode] = true
			}
		}
		space, err := readlink(process + "/ns/mnt")
		if err != nil {
			return nil, err
		}
		if space != "" && !mounts[space] {
			mounts[space] = true
			if err := boundNamespaces(process+"/mountinfo", used); err != nil {
				return nil, err
			}
		}
	}
	return used, nil
}

// readlink returns "" for a process that has ended meanwhile: it holds nothing.
// What may not be read could hold anything.
func readlink(path string) (string, error) {
	target, err := os.Readlink(path)
	if isConcealed(err) {
		return "", fmt.Errorf("looking at a process's namespaces, which takes CAP_SYS_PTRACE: %w", err)
	}
	return target, nil
}

// boundNamespaces adds the namespaces that are mounted: their root is shown as
// "net:[4026532247]" (proc_pid_mountinfo(5), field 4).
func boundNamespaces(mountinfo string, used map[uint64]bool) error {
	file, err := os.Open(mountinfo)
	if isConcealed(err) {
		return fmt.Errorf("looking at a process's mounts: %w", err)
	}
	if err != nil {
		return nil
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 {
			if inode, ok := namespaceInode(fields[3]); ok {
				used[inode] = true
			}
		}
	}
	return nil
}

// isConcealed reports whether an error says that the right to look at a process
// is missing, so that it may hold a pod's namespace unseen. With the right,
// single processes can still be out of reach: those of a machine's supervisor
// are, and those outside of the user namespace in which all pods are.
func isConcealed(err error) bool {
	return errors.Is(err, fs.ErrPermission) && !mayLookAtProcesses()
}

// mayLookAtProcesses reports whether the thread has CAP_SYS_PTRACE.
func mayLookAtProcesses() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_PTRACE) != 0
}

func namespaceInode(text string) (inode uint64, ok bool) {
	n, err := fmt.Sscanf(text, "net:[%d]", &inode)
	return inode, n == 1 && err == nil
}
