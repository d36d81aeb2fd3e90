package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
	"github.com/flatnet-cni/flatnet/test/poddevice"
)

// childVariable makes the test binary be the plugin; its value is the number of
// the change before which it kills itself, 0 for none.
const childVariable = "FLATNET_TEST_KILL_AT"

func TestMain(m *testing.M) {
	if at, isChild := os.LookupEnv(childVariable); isChild {
		cni.Main("test", &Plugin{Step: killAt(at)})
	}
	netlab.Main(m)
}

func killAt(text string) func(string) error {
	at, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	calls := 0
	return func(string) error {
		if calls++; calls == at {
			// The process has no time for anything else.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
}

// stage is a node, and what is done on it.
type stage struct {
	t         *testing.T
	lab       *netlab.Lab
	node      *netlab.Node
	directory string // of the state
	config    map[string]any
}

func newStage(t *testing.T, ranges ...string) *stage {
	t.Helper()
	lab := netlab.Start(t)
	lan := lab.Segment("lan")
	s := &stage{t: t, lab: lab, node: lab.Node("node", lan.Port("172.30.0.1/24", "fd00:30::1/64")), directory: filepath.Join(t.TempDir(), "flatnet")}
	var sets [][]map[string]string
	for _, r := range ranges {
		sets = append(sets, []map[string]string{{"subnet": r}})
	}
	s.config = map[string]any{
		"cniVersion": "1.1.0", "name": "net", "type": "flatnet", "stateDir": s.directory, "podDevice": poddevice.Chosen(t),
		"ipam": map[string]any{"ranges": sets},
	}
	return s
}

// call is one execution of the plugin.
type call struct {
	verb, container, netns, args string
	config                       map[string]any // beside the stage's
	step                         func(string) error
}

func (s *stage) input(c call) []byte {
	merged := map[string]any{}
	for _, from := range []map[string]any{s.config, c.config} {
		for k, v := range from {
			merged[k] = v
		}
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

func (c call) environment() map[string]string {
	return map[string]string{
		"CNI_COMMAND": c.verb, "CNI_CONTAINERID": c.container, "CNI_NETNS": c.netns,
		"CNI_IFNAME": "eth0", "CNI_ARGS": c.args,
	}
}

// run executes the plugin in this process, on a thread of the node.
func (s *stage) run(c call) (*current.Result, error) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	environment := c.environment()
	process := cni.Process{
		About: "test", Getenv: func(k string) string { return environment[k] },
		Stdin: bytes.NewReader(s.input(c)), Stdout: &stdout, Stderr: &stderr,
	}
	status := -1
	if err := s.node.Do(func() error { status = process.Run(&Plugin{Step: c.step}); return nil }); err != nil {
		s.t.Fatal(err)
	}
	return s.outcome(c, status, stdout.Bytes())
}

// repeat does what a runtime does: it runs a call that is told to try again later once
// more. So many may wait for each other that a slow machine needs longer than a lock is
// waited for.
func (s *stage) repeat(c call) (result *current.Result, err error) {
	s.t.Helper()
	_, _ = pace.Await(pace.Far(), func() error {
		if result, err = s.run(c); code(err) == cni.CodeTryAgain {
			return err
		}
		return nil
	})
	return result, err
}

// spawn executes the plugin in a process of its own, which kills itself before
// the given change; killed is true where it came to that.
func (s *stage) spawn(c call, at int) (_ *current.Result, killed bool, _ error) {
	s.t.Helper()
	var stdout bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childVariable, at))
	for k, v := range c.environment() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(s.input(c)), &stdout, nil
	err := s.node.Run(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return nil, true, nil
	}
	if err != nil && exit == nil {
		s.t.Fatal(err)
	}
	result, err := s.outcome(c, cmd.ProcessState.ExitCode(), stdout.Bytes())
	return result, false, err
}

func (s *stage) outcome(c call, status int, stdout []byte) (*current.Result, error) {
	s.t.Helper()
	if status != 0 {
		var e types.Error
		if err := json.Unmarshal(stdout, &e); err != nil {
			s.t.Fatalf("%s: status %d, and stdout is no error document: %q", c.verb, status, stdout)
		}
		return nil, &e
	}
	if c.verb != "ADD" {
		if len(stdout) != 0 {
			s.t.Fatalf("%s printed %q", c.verb, stdout)
		}
		return nil, nil
	}
	result, err := create.CreateFromBytes(stdout)
	if err != nil {
		s.t.Fatalf("ADD printed %q: %v", stdout, err)
	}
	r, err := current.GetResult(result)
	if err != nil {
		s.t.Fatal(err)
	}
	return r, nil
}

// mustAdd attaches a pod.
func (s *stage) mustAdd(container string, pod *netlab.Namespace) *current.Result {
	s.t.Helper()
	result, err := s.run(call{verb: "ADD", container: container, netns: pod.Path})
	if err != nil {
		s.t.Fatalf("ADD %s: %v", container, err)
	}
	return result
}

func (s *stage) mustDel(container, netns string) {
	s.t.Helper()
	if _, err := s.run(call{verb: "DEL", container: container, netns: netns}); err != nil {
		s.t.Fatalf("DEL %s: %v", container, err)
	}
}

// left lists everything of flatnet's that is on the node: interfaces, routes,
// neighbours, tables of nftables, reservations, records.
func (s *stage) left() []string {
	s.t.Helper()
	var found []string
	h := s.node.Netlink()
	links, err := h.LinkList()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range links {
		if l.Attrs().Group == kernel.Group || strings.HasPrefix(l.Attrs().Name, "veth") {
			found = append(found, "interface "+l.Attrs().Name)
		}
	}
	for _, table := range []int{254, 255} {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := h.RouteListFiltered(family, &netlink.Route{Protocol: kernel.Protocol, Table: table}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, r := range routes {
				found = append(found, "route "+r.String())
			}
		}
	}
	err = s.node.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			found = append(found, "table "+t.Name)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return append(found, s.files()...)
}

// files lists the state's files that are about an attachment.
func (s *stage) files() []string {
	var found []string
	_ = filepath.WalkDir(s.directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		directory := filepath.Base(filepath.Dir(path))
		_, notAddress := netip.ParseAddr(entry.Name())
		if directory == "attachments" || directory == "owners" || notAddress == nil && directory == "net" {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// checkNothingLeft fails where something is on the node.
func (s *stage) checkNothingLeft(after string) {
	s.t.Helper()
	if found := s.left(); len(found) > 0 {
		s.t.Errorf("%s: left behind:\n%s", after, strings.Join(found, "\n"))
	}
}

func code(err error) uint {
	var e *types.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

// addresses returns a result's addresses, sorted.
func addressesOf(r *current.Result) []string {
	var all []string
	for _, ip := range r.IPs {
		all = append(all, ip.Address.IP.String())
	}
	slices.Sort(all)
	return all
}
