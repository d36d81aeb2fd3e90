// Command demo shows flatnet at work: three nodes on this machine that run
// flatnetd, two of them on one subnet and one behind a router, pods on each of
// them, and every pod reaching every other pod without address translation.
//
//	make build && go run ./test/demo
//
// Nodes and pods are network namespaces that belong to this process alone. They
// end with it, however it ends, and the machine's own network is never touched.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// limit is far more than a demonstration takes.
const limit = 15 * time.Minute

// interrupted is the exit status of a shell's command after Ctrl-C.
const interrupted = 130

func main() {
	binaries := flag.String("binaries", "", "`directory` of flatnetd and the plugins (default: bin in this checkout)")
	flag.Parse()
	// From the start, so that Ctrl-C never ends the process before it has cleaned up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := find(*binaries)
	if err == nil {
		err = netlab.Enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = run(timed, os.Stdout, directory)
	if err == context.Canceled {
		os.Exit(interrupted) // and run has said so
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// find returns the absolute path of the directory with the programs.
func find(directory string) (string, error) {
	if directory == "" {
		root, err := reference.Repository()
		if err != nil {
			return "", err
		}
		directory = filepath.Join(root, "bin")
	}
	directory, err := filepath.Abs(directory)
	if err != nil {
		return "", fmt.Errorf("finding the programs: %w", err)
	}
	for _, name := range []string{"flatnetd", "flatnet", "flatnet-ipam"} {
		if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
			return "", fmt.Errorf("finding the programs, which `make build` makes: %w", err)
		}
	}
	return directory, nil
}
