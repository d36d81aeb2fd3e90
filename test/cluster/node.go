package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// Node is a machine that runs flatnetd.
type Node struct {
	*netlab.Node
	Name      string
	Number    int // 1 for the first of the cluster
	Addresses []netip.Addr
	PodCIDRs  []netip.Prefix

	Directory string // the node's own; the others are below it
	StateDir  string
	BinDir    string
	ConfDir   string

	// Under is a program with flags that flatnetd is started by, which takes something away
	// from it (setpriv, prlimit); none where it is empty.
	Under []string

	cluster *Cluster
	flags   []string // of the last start
	process *process
}

// process is a running flatnetd.
type process struct {
	cmd   *exec.Cmd
	wait  func() error
	ended chan struct{} // closed when it has ended
}

func (n *Node) fail(format string, a ...any) {
	n.cluster.Lab.Fail(fmt.Errorf("node "+n.Name+": "+format, a...))
}

// Conflist is the configuration that flatnetd writes.
func (n *Node) Conflist() string { return filepath.Join(n.ConfDir, "10-flatnet.conflist") }

// Flags are what flatnetd is told on this node before the test's own flags,
// which may override them.
func (n *Node) Flags() []string {
	return []string{
		"--node-name", n.Name, "--nodes-file", n.cluster.NodesFile, "--state-dir", n.StateDir,
		"--cni-bin-dir", n.BinDir, "--cni-conf-dir", n.ConfDir, "--plugins-dir", n.cluster.Binaries, "--health", n.cluster.Health,
		"--datapath", n.cluster.Datapath,
	}
}

// Start starts flatnetd, and does not wait for anything.
func (n *Node) Start(flags ...string) {
	if n.process != nil {
		n.fail("flatnetd runs already")
		return
	}
	n.flags = flags
	cmd, wait, err := n.spawn("", flags...)
	if err != nil {
		n.fail("%w", err)
		return
	}
	p := &process{cmd: cmd, wait: wait, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = wait() // whoever ends it asks how it ended
	}()
	n.process = p
}

// StartAgain starts flatnetd with the flags that it had the last time.
func (n *Node) StartAgain() { n.Start(n.flags...) }

// spawn starts a flatnetd that writes to the log of the node.
func (n *Node) spawn(command string, flags ...string) (*exec.Cmd, func() error, error) {
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := n.command(command, flags...)
	// A file, and not a pipe to this process, never makes flatnetd wait.
	cmd.Stdout, cmd.Stderr = log, log
	wait, err := n.Node.Start(cmd)
	return cmd, wait, err
}

func (n *Node) command(command string, flags ...string) *exec.Cmd {
	var arguments []string
	if command != "" {
		arguments = append(arguments, command)
	}
	arguments = append(append(arguments, n.Flags()...), flags...)
	words := append(slices.Clone(n.Under), filepath.Join(n.cluster.Binaries, "flatnetd"))
	cmd := exec.Command(words[0], append(words[1:], arguments...)...)
	// With the race detector a program would sleep for a second before it ends.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// Flatnetd runs a command of flatnetd (status, cleanup) and returns what it
// printed on standard output; the error has what it printed on standard error.
func (n *Node) Flatnetd(command string, flags ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := n.command(command, flags...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := n.Run(cmd); err != nil {
		return out.String(), fmt.Errorf("flatnetd %s: %w: %s", command, err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// StartSecond starts another flatnetd on the node, beside the one of Start. end
// ends it with SIGTERM, and returns how it ended.
func (n *Node) StartSecond(flags ...string) (end func() error) {
	cmd, wait, err := n.spawn("", flags...)
	if err != nil {
		n.fail("%w", err)
		return nil
	}
	return func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		return wait()
	}
}

// Stop ends flatnetd with SIGTERM and waits for that; it returns how long that
// took.
func (n *Node) Stop() time.Duration {
	begin := time.Now()
	if err := n.end(); err != nil {
		n.fail("%w", err)
	}
	return time.Since(begin)
}

// end is Stop, if flatnetd runs.
func (n *Node) end() error {
	if n.process == nil {
		return nil
	}
	p := n.process
	n.process = nil
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending flatnetd on %s: %w", n.Name, err)
	}
	hung := time.AfterFunc(patience, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	// It ends with status 0, also where it had to be told: anything else is a
	// crash, or a race (66).
	err := p.wait()
	var exit *exec.ExitError
	if status, is := waitStatus(err, &exit); is && status.Signal() == syscall.SIGTERM {
		err = nil // it had not begun
	}
	if err != nil {
		return fmt.Errorf("flatnetd on %s: %w", n.Name, err)
	}
	if strings.Contains(n.Log(), "DATA RACE") {
		return fmt.Errorf("flatnetd on %s has a data race; see its log", n.Name)
	}
	return nil
}

// Kill ends flatnetd with SIGKILL.
func (n *Node) Kill() {
	if n.process == nil {
		n.fail("flatnetd does not run")
		return
	}
	p := n.process
	n.process = nil
	_ = p.cmd.Process.Kill() // waiting tells whether it had ended before
	err := p.wait()
	var exit *exec.ExitError
	if status, is := waitStatus(err, &exit); !is || status.Signal() != syscall.SIGKILL {
		n.fail("flatnetd had ended before it was killed: %w", err)
	}
}

func waitStatus(err error, exit **exec.ExitError) (syscall.WaitStatus, bool) {
	if !errors.As(err, exit) {
		return 0, false
	}
	status, is := (*exit).Sys().(syscall.WaitStatus)
	return status, is
}

// Wait returns how flatnetd ended by itself.
func (n *Node) Wait() error {
	p := n.process
	n.process = nil
	return p.wait()
}

// Restart stops flatnetd and starts it with other flags, or the same where none
// are given, and waits until it is ready.
func (n *Node) Restart(flags ...string) {
	n.Stop()
	if flags == nil {
		flags = n.flags
	}
	n.Start(flags...)
	n.WaitReady()
}

// WaitReady waits until /readyz says yes, and packets take the path that they were told
// to; it returns how long that took. It fails at once if flatnetd ends instead.
func (n *Node) WaitReady() time.Duration {
	return n.cluster.Eventually("flatnetd on "+n.Name+" to be ready", func() error {
		_, err := n.Get("/readyz")
		if err == nil {
			return n.onItsPath()
		}
		if n.process == nil {
			return err
		}
		select {
		case <-n.process.ended:
			n.fail("flatnetd has ended before it was ready: %w", cmp.Or(n.process.wait(), errEnded))
		default:
		}
		return err
	})
}

// onItsPath fails unless packets take the path that flatnetd was told to have them take.
func (n *Node) onItsPath() error {
	told := ""
	for words := append(n.Flags(), n.flags...); len(words) > 0; words = words[1:] {
		if value, is := strings.CutPrefix(words[0], "--datapath="); is {
			told = value
		} else if words[0] == "--datapath" && len(words) > 1 {
			told = words[1]
		}
	}
	if told != "ebpf" {
		return nil // auto may be either, and kernel is what there is without anything
	}
	s, err := n.TryStatus()
	if err == nil && s.FastPath.Datapath != told {
		err = fmt.Errorf("--datapath %s: it is %s, %s", told, s.FastPath.Datapath, s.FastPath.Because)
	}
	return err
}

// errEnded says how flatnetd ended where it ended well.
var errEnded = errors.New("exit status 0")

// Get asks flatnetd over its socket: /healthz, /readyz, /metrics, /status.
func (n *Node) Get(path string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", agent.SocketPath(n.StateDir))
		},
	}}
	answer, err := client.Get("http://flatnetd" + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, strings.TrimSpace(string(text)))
	}
	return string(text), err
}

// Status is what `flatnetd status` shows.
func (n *Node) Status() (s agent.Status) {
	// On a busy machine flatnetd may be at work for longer than it lets anybody wait.
	_, err := pace.Await(pace.Far(), func() (err error) {
		s, err = n.TryStatus()
		return err
	})
	if err != nil {
		n.fail("%w", err)
	}
	return s
}

// TryStatus is Status where flatnetd may not answer yet.
func (n *Node) TryStatus() (agent.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return agent.AskStatus(ctx, n.StateDir)
}

// Metrics returns the value of each time series, by its name and labels as
// /metrics has them: flatnet_repairs_total{object="route"}.
func (n *Node) Metrics() map[string]float64 {
	text, err := n.Get("/metrics")
	if err != nil {
		n.fail("%w", err)
		return nil
	}
	values, err := Series(text)
	if err != nil {
		n.fail("%w", err)
	}
	return values
}

// Series returns the value of each time series in what a /metrics answers, by its name
// and labels.
func Series(text string) (map[string]float64, error) {
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("reading metrics: line %q: %w", line, err)
		}
		values[line[:at]] = value
	}
	return values, nil
}

// Repairs is flatnet_repairs_total of one kind of object, or of all for "".
func (n *Node) Repairs(object string) float64 {
	sum := 0.0
	for name, value := range n.Metrics() {
		if strings.HasPrefix(name, `flatnet_repairs_total{object="`+object) {
			sum += value
		}
	}
	return sum
}

// Log is what all flatnetds of the node have written.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.logPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(text)
}

func (n *Node) logPath() string { return filepath.Join(n.Directory, "log") }

// Pid is the running flatnetd's.
func (n *Node) Pid() int { return n.process.cmd.Process.Pid }
