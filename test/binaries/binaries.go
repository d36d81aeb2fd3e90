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
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// programs are flatnet's.
var programs = []string{"flatnet", "flatnet-ipam", "flatnetd", "flatnet-bgp"}

// directoryVariable names the directory where the programs are already, for
// tests that run apart from the repository.
const directoryVariable = "FLATNET_BINARIES"

// Build builds flatnet, flatnet-ipam, flatnetd and flatnet-bgp into the repository's bin/, if they are
// missing there or older than the source, and returns that directory. With
// $FLATNET_BINARIES it is that directory, and nothing is built.
func Build() (directory string, err error) { return buildAll("bin", nil) }

// BuildForTest is Build, but where the calling program has the race detector,
// flatnetd gets it too: the directory is another one then. A flatnetd that
// finds a race says so on standard error, and ends with status 66.
func BuildForTest() (directory string, err error) {
	if !RaceDetector {
		return Build()
	}
	// The plugin has no goroutines to speak of, and would take long to begin.
	// Not flatnet-bgp: GoBGP 4.8 has races of its own, between its sessions' goroutines
	// (handleFSMMessage writes what propagateUpdateToNeighbors reads).
	return buildAll(filepath.Join("bin", "race"), map[string]bool{"flatnetd": true})
}

// buildAll builds the programs below the repository's root, some of them with
// the race detector.
func buildAll(below string, race map[string]bool) (directory string, err error) {
	if directory := os.Getenv(directoryVariable); directory != "" {
		return directory, nil
	}
	root, err := reference.Repository()
	if err != nil {
		return "", err
	}
	directory = filepath.Join(root, below)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", fmt.Errorf("making a place for binaries: %w", err)
	}
	// Packages are tested side by side: one builds, the others wait.
	unlock, err := lock(filepath.Join(directory, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, name := range programs {
		if err := build(root, directory, name, race[name]); err != nil {
			return "", err
		}
	}
	return directory, nil
}

func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func build(root, directory, name string, race bool) error {
	binary := filepath.Join(directory, name)
	stale, err := olderThanSource(binary, root)
	if err != nil || !stale {
		return err
	}
	// What is changed during the build must make the binary an old one.
	begin := time.Now()
	fresh := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer os.Remove(fresh)
	arguments, cgo := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", fresh}, "CGO_ENABLED=0"
	if race {
		arguments, cgo = append(arguments, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(arguments, "./cmd/"+name)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, output)
	}
	if err := os.Chtimes(fresh, begin, begin); err != nil {
		return err
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
