package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
	"github.com/flatnet-cni/flatnet/test/e2e/report"
)

// PolicyAPI is network-policy-api's conformance, of ClusterNetworkPolicy, which is no
// part of Kubernetes' own tests: a program of its own.
const PolicyAPI = "network-policy-api"

// policyAPI is the program, and the directory below test/e2e that says of which version.
var policyAPI = programs.Program{
	Name: "policyapi.test", Module: "policyapi", Package: "github.com/flatnet-cni/flatnet/test/e2e/policyapi", Test: true,
}

// RunPolicyAPI installs ClusterNetworkPolicy in the cluster, where it stays, and runs its
// conformance tests. They take a quarter of an hour.
func RunPolicyAPI(ctx context.Context, l *lab.Lab, b programs.Builder, image string, out io.Writer) ([]report.Result, error) {
	if err := b.Build(ctx, []programs.Program{policyAPI}); err != nil {
		return nil, err
	}
	if err := installPolicyAPI(ctx, l, b.Source); err != nil {
		return nil, err
	}
	_, skipped := Together{{Name: PolicyAPI, SCTP: true}}.withoutSCTP()
	directory := filepath.Join(l.Directory, "upstream")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, fmt.Errorf("making place for results of upstream's tests: %w", err)
	}
	path := filepath.Join(directory, PolicyAPI+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("writing log of upstream's tests: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(b.Directory, policyAPI.Name), "-test.v", "-test.timeout=1h", "-image="+image, fmt.Sprintf("-sctp=%t", len(skipped) == 0))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	var text bytes.Buffer
	cmd.Stdout = io.MultiWriter(log, &text)
	cmd.Stderr = cmd.Stdout
	fmt.Fprintf(out, "upstream's %s: running, log in %s … ", PolicyAPI, path)
	begin := time.Now()
	err = wait(ctx, cmd)
	fmt.Fprintf(out, "%s\n", time.Since(begin).Round(time.Second))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("running upstream's %s: %w", PolicyAPI, err)
	}
	results := readPolicyAPI(text.String())
	_, failed, _ := report.Count(results)
	switch {
	case len(results) == 0:
		return nil, fmt.Errorf("upstream's %s came to no result (see %s)", PolicyAPI, path)
	case failed == 0 && exit != nil:
		return results, fmt.Errorf("upstream's %s: %w, and no test failed (see %s)", PolicyAPI, exit, path)
	}
	return results, nil
}

// installPolicyAPI has the API server know ClusterNetworkPolicies, and waits until every
// flatnetd has noticed, which asks once a minute.
func installPolicyAPI(ctx context.Context, l *lab.Lab, source string) error {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api")
	list.Dir = filepath.Join(source, policyAPI.Module)
	module, err := list.Output()
	if err != nil {
		return fmt.Errorf("looking for the module of %s: %w", PolicyAPI, err)
	}
	definition := filepath.Join(strings.TrimSpace(string(module)), "config", "crd", "experimental", "policy.networking.k8s.io_clusternetworkpolicies.yaml")
	if _, err := l.Kubectl("apply", "--server-side", "-f", definition); err != nil {
		return fmt.Errorf("installing ClusterNetworkPolicy: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		logs, err := l.Kubectl("-n", "flatnet", "logs", "--tail=-1", "--prefix", "-l", "app.kubernetes.io/name=flatnetd")
		if err != nil {
			return fmt.Errorf("reading flatnetd's logs: %w", err)
		}
		watching := map[string]bool{}
		for line := range strings.Lines(logs) {
			if pod, text, _ := strings.Cut(line, " "); strings.Contains(text, "watching ClusterNetworkPolicies") {
				watching[pod] = true
			}
		}
		if len(watching) == len(l.Plan().Machines) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d flatnetd watch ClusterNetworkPolicies: is FLATNETD_POLICIES on?", len(watching), len(l.Plan().Machines))
		case <-time.After(time.Second):
		}
	}
}

var policyAPITest = regexp.MustCompile(`^    --- (PASS|FAIL|SKIP): TestConformance/(\S+) \(([0-9.]+)s\)`)

// readPolicyAPI reads what the program prints: a line for each test, without the parts
// that a test has.
func readPolicyAPI(text string) (results []report.Result) {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		found := policyAPITest.FindStringSubmatch(lines.Text())
		if found == nil {
			continue
		}
		r := report.Result{Group: PolicyAPI, Name: found[2], Outcome: report.Pass}
		r.Duration, _ = time.ParseDuration(found[3] + "s") // the expression's own digits
		switch found[1] {
		case "FAIL":
			r.Outcome, r.Detail = report.Fail, "see the log"
		case "SKIP":
			r.Outcome, r.Detail = report.Skip, "of SCTP, or a feature that is not there: see the log"
		}
		results = append(results, r)
	}
	return results
}
