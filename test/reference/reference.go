// Package reference provides the CNI project's own plugins to tests: ptp,
// bridge, loopback, host-local, static, portmap, bandwidth, tuning and
// firewall, in the version that the module in ./plugins pins.
//
// They are built from source once and kept in bin/reference. Building may
// have to download modules, so a test that runs in a network namespace of its
// own asks for them before it enters that:
//
//	func TestMain(m *testing.M) {
//		if _, err := reference.Plugins(); err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//		netlab.Main(m)
//	}
package reference

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// Build returns the directory that holds the reference plugins, for a test.
func Build(t testing.TB) string {
	t.Helper()
	directory, err := Plugins()
	if err != nil {
		t.Fatal(err)
	}
	return directory
}

// directoryVariable names the directory where the plugins are already, for
// tests that run apart from the repository.
const directoryVariable = "FLATNET_REFERENCE"

// Plugins returns the directory that holds the reference plugins, and builds
// them where that has not been done before. Packages may call it at the same
// time. Fails if the go command is missing, a module cannot be downloaded or
// the repository's bin directory cannot be written. With $FLATNET_REFERENCE
// it is that directory, and nothing is built.
func Plugins() (string, error) {
	if directory := os.Getenv(directoryVariable); directory != "" {
		return directory, nil
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "test", "reference", "plugins")
	key, err := pinned(source)
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, "bin", "reference")
	directory := filepath.Join(cache, key)
	if _, err := os.Stat(directory); err == nil {
		return directory, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making a place for the reference plugins: %w", err)
	}
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(directory); err == nil {
		return directory, nil // another process was faster
	}
	return directory, build(source, cache, directory)
}

// BuildFor builds the plugins into a directory for a machine of another
// architecture (as $GOARCH).
func BuildFor(architecture, directory string) error {
	root, err := Repository()
	if err != nil {
		return err
	}
	return compile(filepath.Join(root, "test", "reference", "plugins"), directory, "GOARCH="+architecture)
}

// Path returns where something of the checkout is, for a test: the root without elements.
func Path(t testing.TB, elements ...string) string {
	t.Helper()
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, elements...)...)
}

// Repository returns the root of the checkout that the working directory is in.
func Repository() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := directory; ; directory = filepath.Dir(directory) {
		if _, err := os.Stat(filepath.Join(directory, "test", "reference", "plugins", "go.mod")); err == nil {
			return directory, nil
		}
		if directory == filepath.Dir(directory) {
			return "", fmt.Errorf("no directory above %s is a checkout of flatnet", start)
		}
	}
}

// pinned is a name for what a build of the module in directory results in.
func pinned(directory string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return "", fmt.Errorf("reading which plugins are the reference: %w", err)
		}
		sum.Write(content)
	}
	fmt.Fprint(sum, runtime.Version(), runtime.GOARCH)
	return fmt.Sprintf("%x", sum.Sum(nil)[:6]), nil
}

// lock waits until no other process builds into cache.
func lock(cache string) (unlock func(), err error) {
	handle, err := os.Open(cache)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(handle.Fd()), syscall.LOCK_EX); err != nil {
		handle.Close()
		return nil, fmt.Errorf("locking %s: %w", cache, err)
	}
	return func() { handle.Close() }, nil
}

// build makes directory appear with all plugins in it, or not at all.
func build(source, cache, directory string) error {
	fresh, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := compile(source, fresh); err != nil {
		return err
	}
	return errors.Join(os.Chmod(fresh, 0o755), os.Rename(fresh, directory))
}

// compile builds the plugins into a directory that is there.
func compile(source, directory string, environment ...string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", directory, "tool")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	cmd.Env = append(cmd.Env, environment...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the reference plugins in %s: %w\n%s", source, err, output)
	}
	return nil
}
