// Package upstream runs Kubernetes' own tests of the network on a cluster.
package upstream

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/report"
)

// Suite is a selection of upstream's tests.
type Suite struct {
	Name string
	// Focus and Skip are regexps of tests' full names.
	Focus, Skip string
	// SCTP says that some of the tests need it of the kernel.
	SCTP bool
}

// Suites that are known, by what they cover.
var (
	Conformance = Suite{Name: "Conformance", Focus: `\[sig-network\].*\[Conformance\]`}
	DualStack   = Suite{Name: "dual stack", Focus: `\[sig-network\].*\[Feature:IPv6DualStack\]`, Skip: `LoadBalancer`, SCTP: true}
	// Policies are those of NetworkPolicy.
	Policies = Suite{Name: "policies", Focus: `\[sig-network\] Netpol|\[sig-network\] NetworkPolicy`, Skip: `\[Disruptive\]`, SCTP: true}
	// Network is everything else that needs no cloud, and does not break the cluster
	// for the tests beside it.
	Network = Suite{
		Name: "sig-network", Focus: `\[sig-network\]`,
		Skip: `\[Conformance\]|\[Feature:|\[Slow\]|\[Serial\]|\[Disruptive\]|LoadBalancer|SCTP|Netpol`,
	}
)

// sctp tests are left out where the kernel has no SCTP: they could only fail.
const sctp = `SCTP|sctp`

// Together is one run of suites, which takes less time than one after the
// other. It leaves out what any of them leaves out.
type Together []Suite

// Name of the run.
func (t Together) Name() string { return t.join(" and ", func(s Suite) string { return s.Name }) }

func (t Together) focus() string { return t.join("|", func(s Suite) string { return s.Focus }) }

func (t Together) skip() string { return t.join("|", func(s Suite) string { return s.Skip }) }

func (t Together) join(separator string, part func(Suite) string) string {
	var parts []string
	for _, s := range t {
		if p := part(s); p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, separator)
}

// group is the name of the first suite that selects a test.
func (t Together) group(test string) string {
	for _, s := range t {
		if regexp.MustCompile(s.Focus).MatchString(test) {
			return s.Name
		}
	}
	return t.Name()
}

// noSCTP says why the kernel has no SCTP, nil where it has.
func noSCTP() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(socket)
	}
	return err
}

// withoutSCTP changes suites for a kernel that lacks it, and says so in results.
func (t Together) withoutSCTP() (Together, []report.Result) {
	err := noSCTP()
	if err == nil {
		return t, nil
	}
	possible := make(Together, 0, len(t))
	var skipped []report.Result
	for _, s := range t {
		if s.SCTP {
			s.Skip = Together{s, {Skip: sctp}}.skip()
			skipped = append(skipped, report.Result{Group: s.Name, Name: "tests of SCTP", Outcome: report.Skip, Detail: "the kernel has no SCTP: " + err.Error()})
		}
		possible = append(possible, s)
	}
	return possible, skipped
}

// Run runs suites on the cluster's control plane, which is connected to all
// that tests want to reach. What ginkgo says goes to a file in the cluster's
// directory; out gets a line now and then.
func Run(ctx context.Context, l *lab.Lab, suites Together, out io.Writer) ([]report.Result, error) {
	suites, skipped := suites.withoutSCTP()
	title := suites.Name()
	name := strings.ReplaceAll(title, " ", "-")
	directory, err := results(l)
	if err != nil {
		return nil, err
	}
	junit, log := filepath.Join(directory, name+".xml"), filepath.Join(directory, name+".log")
	if err := os.Remove(junit); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	args := []string{
		filepath.Join(l.Binaries(), "ginkgo"), "--procs=6", "--no-color", "--timeout=2h", "--output-dir=" + directory, "--junit-report=" + name + ".xml",
		"--focus=" + suites.focus(), "--skip=" + suites.skip(),
		filepath.Join(l.Binaries(), "e2e.test"), "--",
		"--provider=skeleton", "--kubeconfig=" + l.InsideKubeconfig(), "--kubectl-path=" + filepath.Join(l.Binaries(), "kubectl"),
		fmt.Sprintf("--num-nodes=%d", len(l.Plan().Machines)-1), "--disable-log-dump",
		"--non-blocking-taints=node-role.kubernetes.io/control-plane",
	}
	cmd, err := l.Command("control-plane", args...)
	if err != nil {
		return nil, err
	}
	exit, err := logged(ctx, cmd, title, log, out)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(junit)
	if err != nil {
		return nil, fmt.Errorf("upstream's %s came to no result (see %s): %w", title, log, err)
	}
	found, err := parse(raw, suites.group)
	if err == nil {
		err = unexplained(exit, found, title, log)
	}
	return append(found, skipped...), err
}

// results makes the directory for what upstream's tests come to.
func results(l *lab.Lab) (string, error) {
	directory := filepath.Join(l.Directory, "upstream")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", fmt.Errorf("making place for results of upstream's tests: %w", err)
	}
	return directory, nil
}

// logged runs a program of tests, and what it says goes to a file. exit is how it ended,
// where that was not well.
func logged(ctx context.Context, cmd *exec.Cmd, title, log string, out io.Writer) (exit *exec.ExitError, err error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("writing log of upstream's tests: %w", err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	fmt.Fprintf(out, "upstream's %s: running, log in %s … ", title, log)
	begin := time.Now()
	err = wait(ctx, cmd)
	fmt.Fprintf(out, "%s\n", time.Since(begin).Round(time.Second))
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("running upstream's %s: %w", title, err)
	}
	return exit, nil
}

// unexplained is an error where a program of tests ended badly and no test failed.
func unexplained(exit *exec.ExitError, found []report.Result, title, log string) error {
	if _, failed, _ := report.Count(found); failed > 0 || exit == nil {
		return nil
	}
	return fmt.Errorf("upstream's %s: %w, and no test failed (see %s)", title, exit, log)
}

// wait runs cmd; when the context is done, ginkgo is asked to clean up.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
		case <-time.After(time.Minute):
			cmd.Process.Kill()
		}
		return ctx.Err()
	}
}

// parse reads ginkgo's JUnit report. It lists every test there is; those that
// the suite did not select are left out.
func parse(raw []byte, group func(test string) string) ([]report.Result, error) {
	var suites struct {
		Suites []struct {
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Status  string  `xml:"status,attr"`
				Time    float64 `xml:"time,attr"`
				Skipped *struct {
					Message string `xml:"message,attr"`
				} `xml:"skipped"`
				Failure *struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
				Error *struct {
					Message string `xml:"message,attr"`
				} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &suites); err != nil {
		return nil, fmt.Errorf("reading ginkgo's report: %w", err)
	}
	var results []report.Result
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			name, isTest := strings.CutPrefix(c.Name, "[It] ")
			r := report.Result{Group: group(name), Name: name, Outcome: report.Pass, Duration: time.Duration(c.Time * float64(time.Second))}
			switch {
			case c.Failure != nil:
				r.Outcome, r.Detail = report.Fail, c.Failure.Message
			case c.Error != nil:
				r.Outcome, r.Detail = report.Fail, c.Error.Message
			case c.Skipped != nil:
				reason, atRun := strings.CutPrefix(c.Skipped.Message, "skipped - ")
				if !atRun {
					continue // not selected
				}
				r.Outcome, r.Detail = report.Skip, reason
			case !isTest:
				continue // what runs before and after all
			}
			// Ginkgo repeats the test's labels after its name.
			if i := strings.LastIndex(r.Name, " [sig-network, "); i > 0 {
				r.Name = r.Name[:i]
			}
			results = append(results, r)
		}
	}
	return results, nil
}
