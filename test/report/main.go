package report

import (
	"context"
	"flag"
	"fmt"
	"io"
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

// Main is a demonstration's: run shows something with the programs in a directory, in
// namespaces of this process alone, and leaves nothing. When it ends, so does the process.
func Main(name string, programs []string, run func(ctx context.Context, w io.Writer, directory string) error) {
	binaries := flag.String("binaries", "", "`directory` of flatnetd and the plugins (default: bin in this checkout)")
	flag.Parse()
	// From the start, so that Ctrl-C never ends the process before it has cleaned up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := find(*binaries, programs)
	if err == nil {
		err = netlab.Enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = run(timed, os.Stdout, directory)
	if err == context.Canceled {
		os.Exit(interrupted) // and run has said so
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// find returns the absolute path of the directory with the programs.
func find(directory string, programs []string) (string, error) {
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
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(directory, program)); err != nil {
			return "", fmt.Errorf("finding the programs, which `make build` makes: %w", err)
		}
	}
	return directory, nil
}
