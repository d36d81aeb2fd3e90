package machine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main() // does not return in a machine's first process
	os.Exit(m.Run())
}

// directory for a machine: not below /tmp, which a machine has for itself.
func directory(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("machines need root")
	}
	path, err := os.MkdirTemp("/var/tmp", "flatnet-machine-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return path
}

func start(t *testing.T, spec Spec, listener *net.TCPListener) *Machine {
	t.Helper()
	m, err := Start(spec, listener, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(m.PID, syscall.SIGKILL)
		<-m.exit
	})
	return m
}

func output(t *testing.T, m *Machine, args ...string) string {
	t.Helper()
	text, err := Command(m.PID, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", args, err, text)
	}
	return strings.TrimSpace(string(text))
}

// patience is how long one waits for what has to happen, on a machine that may be busy.
const patience = 2 * time.Minute

// wait for something that nothing announces.
func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func TestMachineIsApartFromThisOne(t *testing.T) {
	dir := directory(t)
	kept := t.TempDir() // below /tmp
	if err := os.WriteFile(filepath.Join(kept, "d"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := start(t, Spec{
		Name: "apart", Directory: dir, Disk: true, Kept: []string{kept},
		Files:  map[string]string{"/etc/flatnet-test/a": "file", "/var/lib/kubelet/b": "on the disk", "/run/c": "c"},
		Copies: map[string]string{"/opt/flatnet-test/true": "/bin/true"},
		Links:  map[string]string{"/usr/local/bin/flatnet-test-echo": "/bin/echo"},
		// Not the value of a new namespace, nor likely that of the real machine.
		Sysctls: map[string]string{"ipv4/ip_default_ttl": "61"},
	}, nil)
	if err := m.Go(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ script, want string }{
		{"hostname", "apart"},
		{"cat " + kept + "/d; ls /tmp | wc -l", "kept1"},
		{"cat /etc/flatnet-test/a /run/c", "filec"},
		{"cat /proc/1/comm | cut -c1-3", strings.TrimSpace(mustRead(t, fmt.Sprintf("/proc/%d/comm", m.PID)))[:3]},
		{"ls /sys/class/net", "lo"},
		{"/opt/flatnet-test/true && echo runs", "runs"},
		{"flatnet-test-echo linked", "linked"},
		{"cat /proc/sys/net/ipv4/ip_default_ttl", "61"},
		{"cat /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic", "1\n10"},
		{"test -d /etc/cni || echo hidden", "hidden"},
		{"stat -f -c %T /etc /run", "overlayfs\ntmpfs"},
		{"cat " + dir + "/disk/kubelet/b", "on the disk"},
		{"ls /sys/fs/cgroup | wc -l", fmt.Sprint(len(mustList(t, "/sys/fs/cgroup")))},
	} {
		if got := output(t, m, "sh", "-c", test.script); got != test.want {
			t.Errorf("%s: %q, want %q", test.script, got, test.want)
		}
	}
	// Started anew it has its disk, also what it keeps in places that were hidden.
	output(t, m, "sh", "-c", "mkdir -p /etc/cni/net.d && echo kept > /etc/cni/net.d/kept")
	syscall.Kill(m.PID, syscall.SIGKILL)
	wait(t, "end", func() bool { return syscall.Kill(m.PID, 0) != nil })
	m = start(t, m.Spec, nil)
	if err := m.Go(); err != nil {
		t.Fatal(err)
	}
	if got := output(t, m, "cat", "/etc/cni/net.d/kept"); got != "kept" {
		t.Errorf("after a reboot: %s", got)
	}
	if got := output(t, m, "sh", "-c", "flatnet-test-echo linked; cat /proc/sys/net/ipv4/ip_default_ttl"); got != "linked\n61" {
		t.Errorf("after a reboot: %s", got)
	}
	if got := strings.TrimSpace(mustRead(t, "/proc/sys/net/ipv4/ip_default_ttl")); got == "61" {
		t.Error("a sysctl of the real machine was set")
	}
	for _, path := range []string{"/etc/flatnet-test", "/opt/flatnet-test", "/usr/local/bin/flatnet-test-echo", "/var/lib/kubelet/b", "/run/c"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is on the real machine", path)
		}
	}
	if mounts := mustRead(t, "/proc/self/mountinfo"); strings.Contains(mounts, dir) {
		t.Errorf("the real machine sees mounts of it:\n%s", mounts)
	}
}

func TestServicesLiveAndEndWithTheMachine(t *testing.T) {
	dir := directory(t)
	// Its child is an orphan at once, and ends before it.
	script := "(true &); echo started; exec sleep 1000"
	m := start(t, Spec{Name: "services", Directory: dir, Services: []Service{
		{Name: "one", Args: []string{"sh", "-c", script}}, {Name: "broken", Args: []string{"false"}},
	}}, nil)
	if err := m.Go(); err != nil {
		t.Fatal(err)
	}
	starts := func() int { return strings.Count(mustRead(t, m.Spec.Log("one")), "started") }
	wait(t, "start", func() bool { return starts() == 1 })

	pids := func() (all []string) {
		// The namespace of its process, which has no /proc of its own here.
		for _, entry := range mustList(t, "/proc") {
			namespace, err := os.Readlink("/proc/" + entry + "/ns/pid")
			comm, _ := os.ReadFile("/proc/" + entry + "/comm")
			mine, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", m.PID))
			if err == nil && namespace == mine && strings.TrimSpace(string(comm)) == "sleep" {
				all = append(all, entry)
			}
		}
		return all
	}
	wait(t, "process", func() bool { return len(pids()) == 1 })
	first := pids()[0]
	var pid int
	fmt.Sscan(first, &pid)
	syscall.Kill(pid, syscall.SIGKILL)
	wait(t, "restart", func() bool { return starts() == 2 && len(pids()) == 1 && pids()[0] != first })

	if err := Order(dir, "stop", "one"); err != nil {
		t.Fatal(err)
	}
	if all := pids(); len(all) != 0 {
		t.Errorf("stopped, and processes %s run", all)
	}
	if err := Order(dir, "start", "one"); err != nil {
		t.Fatal(err)
	}
	wait(t, "start", func() bool { return starts() == 3 })
	if err := Order(dir, "restart", "one"); err != nil {
		t.Fatal(err)
	}
	wait(t, "restart", func() bool { return starts() == 4 && len(pids()) == 1 })
	if err := Order(dir, "stop", "two"); err == nil || !strings.Contains(err.Error(), "no service two") {
		t.Errorf("stopping what is not there: %v", err)
	}
	last := pids()[0]
	syscall.Kill(m.PID, syscall.SIGKILL)
	wait(t, "end", func() bool {
		_, err := os.Stat("/proc/" + last)
		return os.IsNotExist(err)
	})
}

// A connection to a listener of this machine arrives in the other's network.
func TestForward(t *testing.T) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := start(t, Spec{
		Name: "forward", Directory: directory(t), Forward: "127.0.0.1:80",
		Services: []Service{{Name: "server", Args: []string{"bash", "-c", "exec sleep 100"}}},
	}, listener)
	if err := m.Go(); err != nil {
		t.Fatal(err)
	}
	// Nothing listens there: the connection is accepted, and closed.
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	if n, err := connection.Read(make([]byte, 1)); n != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("read %d, %v", n, err)
	}
}

// If the program that starts a machine dies before it has remembered it, the
// machine ends too.
func TestMachineOfADeadProgramEnds(t *testing.T) {
	m := start(t, Spec{Name: "orphan", Directory: directory(t)}, nil)
	m.goOn.Close()
	select {
	case err := <-m.exit:
		if err == nil {
			t.Error("it ended with success")
		}
		exited := make(chan error, 1)
		exited <- err
		m.exit = exited
	case <-time.After(patience):
		t.Error("it goes on")
	}
}

func TestWhatGoesWrongIsReported(t *testing.T) {
	m := start(t, Spec{Name: "wrong", Directory: directory(t), Services: []Service{{Name: "x", Args: []string{"no-such-program"}}}}, nil)
	if err := m.Go(); err == nil || !strings.Contains(err.Error(), "machine wrong: starting x: no no-such-program in ") {
		t.Errorf("%v", err)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func mustList(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, filepath.Base(e.Name()))
	}
	return names
}
