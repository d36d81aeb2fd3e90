// Package programs provides what a cluster runs: Kubernetes and CoreDNS, built
// as Go modules and kept, and Debian's containerd, runc and etcd. Other versions
// of containerd are built as well.
package programs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Program is one that is built.
type Program struct {
	Name string
	// Module is the directory below test/e2e that pins the version.
	Module  string
	Package string
	// Test says that the program is the package's test.
	Test bool
	// Version is set in programs of Kubernetes, which report it.
	Version string
}

// Named returns those of the programs that have these names.
func Named(all []Program, names []string) ([]Program, error) {
	var found []Program
	for _, name := range names {
		i := slices.IndexFunc(all, func(p Program) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%s is not among the programs that are built", name)
		}
		found = append(found, all[i])
	}
	return found, nil
}

// Builder builds programs into a directory, and leaves those alone that are
// there in the same version.
type Builder struct {
	Source    string // test/e2e
	Directory string
	Out       io.Writer // progress
}

// Build builds what is missing, one after the other; the go command uses all
// processors by itself. Only one process at a time builds into a directory.
func (b Builder) Build(ctx context.Context, programs []Program) error {
	if err := os.MkdirAll(b.Directory, 0o755); err != nil {
		return fmt.Errorf("making a place for programs: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(b.Directory, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("locking %s: %w", b.Directory, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", b.Directory, err)
	}
	var missing []Program
	for _, p := range programs {
		key, err := b.key(p)
		if err != nil {
			return err
		}
		if old, err := os.ReadFile(b.stamp(p)); err != nil || string(old) != key {
			missing = append(missing, p)
		}
	}
	for i, p := range missing {
		fmt.Fprintf(b.Out, "building %s (%d of %d) … ", p.Name, i+1, len(missing))
		start := time.Now()
		if err := b.build(ctx, p); err != nil {
			fmt.Fprintln(b.Out)
			return err
		}
		fmt.Fprintf(b.Out, "%s\n", time.Since(start).Round(time.Second/10))
	}
	return nil
}

func (b Builder) stamp(p Program) string { return filepath.Join(b.Directory, "."+p.Name+".key") }

// ownPackages are those below test/e2e.
const ownPackages = "github.com/flatnet-cni/flatnet/test/e2e/"

// key names what a build would result in: versions, Go and how it is built.
func (b Builder) key(p Program) (string, error) {
	sum := sha256.New()
	var files []string
	if own, is := strings.CutPrefix(p.Package, ownPackages); is {
		var err error
		if files, err = filepath.Glob(filepath.Join(b.Source, own, "*.go")); err != nil {
			return "", err
		}
	}
	if p.Module != "." { // the whole module's versions would be of much else
		files = append(files, filepath.Join(b.Source, p.Module, "go.mod"), filepath.Join(b.Source, p.Module, "go.sum"))
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading what %s is made of: %w", p.Name, err)
		}
		sum.Write(content)
	}
	fmt.Fprint(sum, runtime.Version(), runtime.GOARCH, p, arguments(p))
	return fmt.Sprintf("%x\n", sum.Sum(nil)[:8]), nil
}

// arguments of the go command, without output and package.
func arguments(p Program) []string {
	flags := "-s -w"
	if p.Version != "" {
		// What Kubernetes' own build sets; nodes report it, and tests ask for it.
		parts := strings.SplitN(strings.TrimPrefix(p.Version, "v"), ".", 3)
		const version = " -X k8s.io/component-base/version."
		flags += version + "gitVersion=" + p.Version + version + "gitMajor=" + parts[0] + version + "gitMinor=" + parts[1]
	}
	verb := []string{"build"}
	if p.Test {
		verb = []string{"test", "-c", "-vet=off"}
	}
	return append(verb, "-trimpath", "-ldflags", flags)
}

func (b Builder) build(ctx context.Context, p Program) error {
	target := filepath.Join(b.Directory, p.Name)
	args := append(append([]string{"-n", "19", "go"}, arguments(p)...), "-o", target+".new", p.Package)
	// The tests of whoever else uses the machine come first.
	cmd := exec.CommandContext(ctx, "nice", args...)
	cmd.Dir = filepath.Join(b.Source, p.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", p.Name, cmd.Dir, err, output)
	}
	if err := os.Rename(target+".new", target); err != nil {
		return fmt.Errorf("building %s: %w", p.Name, err)
	}
	key, err := b.key(p)
	if err != nil {
		return err
	}
	return os.WriteFile(b.stamp(p), []byte(key), 0o644)
}
