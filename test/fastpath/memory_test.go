package fastpath_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// memoryGroup makes a control group whose processes may have so many bytes of memory, and
// returns the file by which a process joins it. It ends with the test.
func memoryGroup(t *testing.T, most int) (processes string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	var tried []error
	for line := range strings.Lines(string(mounts)) {
		words := strings.Fields(line)
		limit := map[string]string{"cgroup": "memory.limit_in_bytes", "cgroup2": "memory.max"}[words[2]]
		if limit == "" {
			continue
		}
		group := filepath.Join(words[1], fmt.Sprint("flatnet-test-", os.Getpid()))
		if err := os.Mkdir(group, 0o755); err != nil {
			tried = append(tried, err)
			continue
		}
		t.Cleanup(func() { must(t, os.Remove(group)) })
		// Without the file the group's parent has no controller of memory.
		err := os.WriteFile(filepath.Join(group, limit), fmt.Append(nil, most), 0)
		if err == nil {
			return filepath.Join(group, "cgroup.procs")
		}
		tried = append(tried, err)
	}
	t.Skip("no control group of memory can be made: ", errors.Join(tried...))
	return ""
}

// anonymous is how much memory a process has that is no file's, in bytes.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := bytes.Cut(raw, []byte("RssAnon:"))
	var kilobytes int
	_, err = fmt.Sscan(string(rest), &kilobytes)
	must(t, err)
	return kilobytes << 10
}

// Where flatnetd may not have the memory that flows take, packets take the kernel's path,
// the status says why, and flatnetd lives; with more it goes on from there.
func TestWithoutMemory(t *testing.T) {
	t.Parallel()
	s := newSite(t, cluster.IPv4, 1, "--datapath", "auto")
	n := s.Nodes[0]
	web, client := s.pod(n, "web"), s.pod(n, "client")
	web.Namespace.ServeLines(t, 80)
	k := s.talk(client.Namespace, netip.AddrPortFrom(web.Address(false), 80))
	s.fast(k, n)
	const spare = 12 << 20 // less than flows take
	processes := memoryGroup(t, anonymous(t, n.Pid())+spare)
	n.Stop()
	n.Under = []string{"sh", "-c", "echo $$ >" + processes + " && exec \"$@\"", "sh"}
	n.Start(s.flags...)
	n.WaitReady()
	if f := n.Status().FastPath; f.Datapath != "kernel" || !strings.Contains(f.Because, "cannot allocate memory") {
		t.Errorf("status is %+v", f)
	}
	must(t, k.say("with little memory"))
	n.Stop()
	n.Under = nil
	n.Start(s.flags...)
	n.WaitReady()
	s.fast(k, n)
}
