// Command e2e tests a cluster that the command cluster started, and prints what
// each test came to: see ../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
	"github.com/flatnet-cni/flatnet/test/e2e/report"
	"github.com/flatnet-cni/flatnet/test/e2e/scenarios"
	"github.com/flatnet-cni/flatnet/test/e2e/upstream"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func main() {
	machine.Main() // does not return in the first process of a machine that was rebooted
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	match := flag.String("run", "", "`regexp` of flatnet's tests to run, as they are printed")
	suites := flag.String("upstream", "conformance", "upstream's tests, separated by commas: conformance (and on a dual-stack cluster those of dual stack), policies, policyapi (ClusterNetworkPolicy; both where FLATNETD_POLICIES is on), others; or all, or none")
	outage := flag.Duration("api-outage", 2*time.Minute, "how `long` the API server is stopped")
	flag.Parse()
	expression, err := regexp.Compile(*match)
	if err != nil {
		return fmt.Errorf("reading -run: %w", err)
	}
	root, err := reference.Repository()
	if err != nil {
		return err
	}
	l, err := lab.Open(lab.Directory, root, os.Stdout)
	if err != nil {
		return fmt.Errorf("%w (`make cluster` starts one)", err)
	}
	source := filepath.Join(root, "test", "e2e")
	b := programs.Builder{Source: source, Directory: l.Binaries(), Out: os.Stdout}
	results := scenarios.Execute(ctx, l, scenarios.All(scenarios.Options{APIOutage: *outage, Build: b.Build}), expression, os.Stdout)
	selected, policyAPI, err := selection(*suites, l.Plan().Options.Family)
	if err != nil {
		return err
	}
	k, err := programs.FindKubernetes(source, l.Plan().Options.Kubernetes)
	if err != nil {
		return err
	}
	if len(selected) > 0 {
		if err := b.Build(ctx, k.Tests()); err != nil {
			return err
		}
	}
	for _, suites := range selected {
		more, err := upstream.Run(ctx, l, suites, os.Stdout)
		if err != nil {
			more = append(more, report.Result{Group: suites.Name(), Name: "the run", Outcome: report.Fail, Detail: err.Error()})
		}
		results = append(results, more...)
	}
	if policyAPI {
		more, err := upstream.RunPolicyAPI(ctx, l, b, k.Images["Agnhost"], os.Stdout)
		if err != nil {
			more = append(more, report.Result{Group: upstream.PolicyAPI, Name: "the run", Outcome: report.Fail, Detail: err.Error()})
		}
		results = append(results, more...)
	}
	fmt.Println()
	report.Table(os.Stdout, results)
	file, err := os.Create(filepath.Join(root, "bin", "e2e", "junit.xml"))
	if err != nil {
		return fmt.Errorf("writing JUnit report: %w", err)
	}
	defer file.Close()
	if err := report.JUnit(file, "flatnet", results); err != nil {
		return err
	}
	if _, failed, _ := report.Count(results); failed > 0 {
		return fmt.Errorf("%d tests failed", failed)
	}
	return nil
}

// selection are the suites of upstream's tests that the flag names, by run, and whether
// it names those that are a program of their own.
func selection(names, family string) (all []upstream.Together, policyAPI bool, err error) {
	conformance := upstream.Together{upstream.Conformance}
	if family == "dual" {
		conformance = append(conformance, upstream.DualStack)
	}
	for name := range strings.SplitSeq(names, ",") {
		switch name {
		case "none":
		case "conformance":
			all = append(all, conformance)
		case "policies":
			all = append(all, upstream.Together{upstream.Policies})
		case "policyapi":
			policyAPI = true
		case "others":
			all = append(all, upstream.Together{upstream.Network})
		case "all":
			all = append(all, conformance, upstream.Together{upstream.Policies}, upstream.Together{upstream.Network})
			policyAPI = true
		default:
			return nil, false, fmt.Errorf("-upstream %s: possible are none, conformance, policies, policyapi, others, all", name)
		}
	}
	return all, policyAPI, nil
}
