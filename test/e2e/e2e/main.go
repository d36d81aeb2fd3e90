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
	"syscall"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/report"
	"github.com/flatnet-cni/flatnet/test/e2e/scenarios"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	match := flag.String("run", "", "`regexp` of the tests to run, as they are printed")
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
	results := scenarios.Execute(ctx, l, scenarios.All(), expression, os.Stdout)
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
