// Package binaries builds flatnet's programs for tests that execute them.
//
// Building may need the network, and tests run in namespaces without one; so a
// package's TestMain builds first and enters the namespaces then.
package binaries

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// Build builds flatnet, flatnet-ipam and flatnetd into the repository's bin/, if they are
// missing there or older than the source, and returns that directory.
func Build() (directory string, err error) {
	root, err := reference.Repository()
	if err != nil {
		return "", err
	}
	directory = filepath.Join(root, "bin")
	for _, name := range []string{"flatnet", "flatnet-ipam", "flatnetd"} {
		if err := build(root, name); err != nil {
			return "", err
		}
	}
	return directory, nil
}

func build(root, name string) error {
	binary := filepath.Join(root, "bin", name)
	stale, err := olderThanSource(binary, root)
	if err != nil || !stale {
		return err
	}
	fresh := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer os.Remove(fresh)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", fresh, "./cmd/"+name)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, output)
	}
	// Another test may be executing the old one: it is replaced, not written to.
	return os.Rename(fresh, binary)
}

// olderThanSource says whether a binary was built before a source file was
// changed.
func olderThanSource(binary, root string) (bool, error) {
	info, err := os.Stat(binary)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, part := range []string{"cmd", "ipam", "pkg", "go.mod", "go.sum"} {
		changed, err := changedSince(filepath.Join(root, part), info.ModTime())
		if err != nil || changed {
			return changed, err
		}
	}
	return false, nil
}

// changedSince says whether a source file at or below path is younger than when.
func changedSince(path string, when time.Time) (bool, error) {
	changed := false
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.ModTime().After(when) {
			changed = true
			return fs.SkipAll
		}
		return err
	})
	return changed, err
}
