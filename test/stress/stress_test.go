// Package stress runs the real plugin many times: killed at random moments, and
// many at once. Whatever happens, no address is held twice, and once the
// runtime has deleted everything, nothing is left.
package stress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// directoryVariable says where the binaries are, which the tests cannot build:
// they have no network.
const directoryVariable = "FLATNET_STRESS_BINARIES"

func TestMain(m *testing.M) {
	if os.Getenv(directoryVariable) == "" {
		directory, err := binaries.Build()
		if err != nil {
			fmt.Fprintln(os.Stderr, "stress:", err)
			os.Exit(1)
		}
		os.Setenv(directoryVariable, directory)
	}
	netlab.Main(m)
}

// machine is a node with pods that are attached and detached.
type machine struct {
	t         *testing.T
	node      *netlab.Node
	pods      []*netlab.Namespace
	directory string

	mu     sync.Mutex
	holder map[string]int // address → the pod that was told to have it
}

func newMachine(t *testing.T, pods int) *machine {
	t.Helper()
	lab := netlab.Start(t)
	m := &machine{t: t, node: lab.Node("node"), directory: filepath.Join(t.TempDir(), "flatnet"), holder: map[string]int{}}
	for i := range pods {
		m.pods = append(m.pods, lab.Pod(fmt.Sprint(i)))
	}
	return m
}

// command prepares an execution of the plugin for a pod.
func (m *machine) command(verb string, pod int, withNamespace bool) (*exec.Cmd, *bytes.Buffer) {
	var stdout bytes.Buffer
	cmd := exec.Command(filepath.Join(os.Getenv(directoryVariable), "flatnet"))
	netns := ""
	if withNamespace {
		netns = m.pods[pod].Path
	}
	cmd.Env = []string{"CNI_COMMAND=" + verb, fmt.Sprintf("CNI_CONTAINERID=pod-%d", pod), "CNI_NETNS=" + netns, "CNI_IFNAME=eth0"}
	config := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "flatnet", "stateDir": %q, "ipMasq": %v,
		"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}}`, m.directory, pod%2 == 0)
	cmd.Stdin, cmd.Stdout = strings.NewReader(config), &stdout
	return cmd, &stdout
}

// run executes the plugin; with a delay, it is killed after that time. Killed is
// true where that was before it had ended by itself.
func (m *machine) run(verb string, pod int, withNamespace bool, delay time.Duration) (killed bool, err error) {
	cmd, stdout := m.command(verb, pod, withNamespace)
	err = m.node.Do(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		if delay > 0 {
			time.AfterFunc(delay, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		}
		return cmd.Wait()
	})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() < 0 {
			return true, nil
		}
		return false, fmt.Errorf("%s of pod %d: %s", verb, pod, stdout)
	}
	if err != nil {
		return false, err
	}
	if verb == "ADD" {
		return false, m.took(pod, stdout.Bytes())
	}
	return false, nil
}

// took notes the addresses of a result; it fails where another pod has one.
func (m *machine) took(pod int, raw []byte) error {
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(raw, &result); err != nil || len(result.IPs) != 2 {
		return fmt.Errorf("pod %d got %q: %v", pod, raw, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ip := range result.IPs {
		address := ip.Address.Addr().String()
		if other, held := m.holder[address]; held {
			return fmt.Errorf("address %s of pod %d was given to pod %d as well", address, other, pod)
		}
		m.holder[address] = pod
	}
	return nil
}

// gives notes that a pod's addresses may be free from now on.
func (m *machine) gives(pod int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for address, holder := range m.holder {
		if holder == pod {
			delete(m.holder, address)
		}
	}
}

// left lists what is on the node.
func (m *machine) left() []string {
	var found []string
	links, err := m.node.Netlink().LinkList()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			found = append(found, "interface "+l.Attrs().Name)
		}
	}
	for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		filter := &netlink.Route{Protocol: 70, Table: table}
		routes, err := m.node.Netlink().RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, r := range routes {
			found = append(found, "route "+r.String())
		}
	}
	err = m.node.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			found = append(found, "nftables table "+t.Name)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	_ = filepath.WalkDir(m.directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		parent := filepath.Base(filepath.Dir(path))
		if _, err := netip.ParseAddr(entry.Name()); err == nil && parent == "net" || parent == "attachments" || parent == "owners" {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// rounds is how often the plugin is killed.
const rounds = 1000

func TestKilledAtRandomMoments(t *testing.T) {
	const workers = 8
	m := newMachine(t, workers)
	counts := make([]int, workers)
	var wg sync.WaitGroup
	for pod := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			random := rand.New(rand.NewPCG(70, uint64(pod)))
			for round := 0; round < rounds/workers; round++ {
				// An ADD takes some milliseconds, a DEL some more.
				delay := func() time.Duration { return time.Duration(random.IntN(15000)) * time.Microsecond }
				killed, err := m.run("ADD", pod, true, delay())
				if err != nil {
					t.Error(err)
				}
				if killed {
					counts[pod]++
				}
				if random.IntN(2) == 0 {
					m.gives(pod)
					if killed, err = m.run("DEL", pod, random.IntN(2) == 0, delay()); err != nil {
						t.Error(err)
					} else if killed {
						counts[pod]++
					}
				}
				m.gives(pod)
				if _, err := m.run("DEL", pod, random.IntN(2) == 0, 0); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	t.Logf("killed %d times in %d rounds", total, rounds)
	if total < rounds/10 {
		t.Errorf("killed only %d times in %d rounds: the test does not test", total, rounds)
	}
	if found := m.left(); len(found) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
	}
}

func TestManyAtATime(t *testing.T) {
	const workers, executions = 64, 5000
	m := newMachine(t, workers)
	var wg sync.WaitGroup
	for pod := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			random := rand.New(rand.NewPCG(5000, uint64(pod)))
			attached := false
			for range executions / workers {
				verb := "ADD"
				if attached {
					verb = "DEL"
					m.gives(pod)
				}
				if _, err := m.run(verb, pod, !attached || random.IntN(2) == 0, 0); err != nil {
					t.Error(err)
					return
				}
				attached = !attached
			}
			m.gives(pod)
			if _, err := m.run("DEL", pod, true, 0); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if found := m.left(); len(found) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
	}
}
