package upstream

import (
	"bufio"
	"context"
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
	directory, err := results(l)
	if err != nil {
		return nil, err
	}
	log := filepath.Join(directory, PolicyAPI+".log")
	cmd := exec.Command(filepath.Join(b.Directory, policyAPI.Name), "-test.v", "-test.timeout=1h", "-image="+image, fmt.Sprintf("-sctp=%t", noSCTP() == nil))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	exit, err := logged(ctx, cmd, PolicyAPI, log, out)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("reading what upstream's %s said: %w", PolicyAPI, err)
	}
	found := readPolicyAPI(string(text))
	if len(found) == 0 {
		return nil, fmt.Errorf("upstream's %s came to no result (see %s)", PolicyAPI, log)
	}
	return found, unexplained(exit, found, PolicyAPI, log)
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
