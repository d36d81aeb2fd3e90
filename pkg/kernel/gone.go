package kernel

import (
	"bufio"
	"fmt"
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
		// A process may end meanwhile; then it holds nothing.
		tasks, _ := filepath.Glob(process + "/task/[0-9]*/ns/net")
		for _, task := range tasks {
			if inode, ok := namespaceInode(readlink(task)); ok {
				used[inode] = true
			}
		}
		if space := readlink(process + "/ns/mnt"); !mounts[space] {
			mounts[space] = true
			boundNamespaces(process+"/mountinfo", used)
		}
	}
	return used, nil
}

func readlink(path string) string {
	target, _ := os.Readlink(path)
	return target
}

// boundNamespaces adds the namespaces that are mounted: their root is shown as
// "net:[4026532247]" (proc_pid_mountinfo(5), field 4).
func boundNamespaces(mountinfo string, used map[uint64]bool) {
	file, err := os.Open(mountinfo)
	if err != nil {
		return
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
}

func namespaceInode(text string) (inode uint64, ok bool) {
	n, err := fmt.Sscanf(text, "net:[%d]", &inode)
	return inode, n == 1 && err == nil
}
