package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// buildFloor builds the programs that belong to the benchmark, with the flags of
// flatnet's own, into a directory that the caller removes.
func buildFloor(ctx context.Context) (string, error) {
	// Not below /run: on a disk, as everybody's programs.
	directory, err := os.MkdirTemp("", "flatnet-bench-")
	if err != nil {
		return "", fmt.Errorf("making a directory for the floor: %w", err)
	}
	const module = "github.com/flatnet-cni/flatnet/test/bench/"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", directory+"/",
		module+"floor", module+"noop", module+"peak", module+"load")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(directory)
		return "", fmt.Errorf("building the floor: %w: %s", err, out)
	}
	return directory, nil
}
