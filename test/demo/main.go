// Command demo shows flatnet at work: three nodes on this machine, pods on each
// of them, and every pod reaching every other pod without address translation.
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
const limit = 3 * time.Minute

// interrupted is the exit status of a shell's command after Ctrl-C.
const interrupted = 130

func main() {
	plugins := flag.String("plugins", "", "`directory` of the plugin flatnet (default: bin in this checkout)")
	flag.Parse()
	// From the start, so that Ctrl-C never ends the process without its DELs.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := find(*plugins)
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

// find returns the absolute path of the directory with the plugin.
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
		return "", fmt.Errorf("finding the plugin: %w", err)
	}
	if _, err := os.Stat(filepath.Join(directory, pluginName)); err != nil {
		return "", fmt.Errorf("finding the plugin, which `make build` makes: %w", err)
	}
	return directory, nil
}
