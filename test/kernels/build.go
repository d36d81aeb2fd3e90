package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"

	"github.com/flatnet-cni/flatnet/test/kernels/suite"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// built is a directory with everything of ours that runs in a guest.
type built string

func (b built) guest() string     { return filepath.Join(string(b), "guest") }
func (b built) programs() string  { return filepath.Join(string(b), "bin") }
func (b built) reference() string { return filepath.Join(string(b), "reference") }
func (b built) test(name string) string {
	return filepath.Join(string(b), "tests", path.Clean(name)+".test")
}

// build compiles what runs in a guest of the architecture. Go's cache makes it
// quick where nothing was changed.
func build(ctx context.Context, root, architecture string, suites []suite.Suite) (built, error) {
	into := built(filepath.Join(root, "bin", "kernels", architecture))
	compile := func(what ...string) error {
		cmd := exec.CommandContext(ctx, "go", what...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOWORK=off")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building for the guest: go %v: %w\n%s", what, err, output)
		}
		return nil
	}
	flags := []string{"-trimpath", "-ldflags=-s -w"}
	if err := compile(append(append([]string{"build"}, flags...), "-o", into.guest(), "./test/kernels/guest")...); err != nil {
		return "", err
	}
	for _, directory := range []string{into.programs(), into.reference()} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return "", err
		}
	}
	err := compile(append(append([]string{"build"}, flags...), "-o", into.programs()+"/",
		"./cmd/flatnet", "./cmd/flatnet-ipam", "./cmd/flatnetd")...)
	if err != nil {
		return "", err
	}
	if err := reference.BuildFor(architecture, into.reference()); err != nil {
		return "", err
	}
	for _, s := range suites {
		if err := compile(append(append([]string{"test", "-c"}, flags...), "-o", into.test(s.Package()), "./"+s.Package())...); err != nil {
			return "", err
		}
	}
	return into, nil
}

// nativeArchitecture is the machine's.
const nativeArchitecture = runtime.GOARCH
