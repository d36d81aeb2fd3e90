// Package debian gets packages of any Debian suite and architecture, from the
// mirror that the machine's apt uses, and unpacks them into a directory: the
// kernels that flatnet is tried on, and the programs of another architecture.
//
//	bookworm, err := debian.Open(ctx, debian.Cache(), "bookworm", "amd64")
//	…
//	err = bookworm.Unpack(ctx, directory, "linux-image-cloud-amd64")
//
// Nothing is installed, and the machine's own lists stay as they are: every
// suite and architecture has lists of its own below the cache.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// keyring is what Debian signs its archive with, as the machine's own
// package debian-archive-keyring knows it.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// listsAge is how old lists of packages may become. An older one could name
// packages that the mirror has no longer.
const listsAge = 24 * time.Hour

// Cache is the directory for what is downloaded, outside of every checkout:
// $FLATNET_KERNELS, or a place that survives reboots.
func Cache() string {
	if directory := os.Getenv("FLATNET_KERNELS"); directory != "" {
		return directory
	}
	return "/var/tmp/flatnet-kernels"
}

// Archive is a Debian suite's packages for one architecture.
type Archive struct {
	Suite        string // a suite's or release's name: "bookworm", "sid"
	Architecture string // Debian's name for it: "amd64", "arm64", "s390x"
	// Unverified says why signatures were not verified; "" if they were.
	Unverified string

	cache     string // of everything
	directory string // of this archive alone
}

// Open makes the lists of a suite's packages available, and downloads them
// where there are none or old ones. Fails if the machine is no Debian, or if
// the mirror has no such suite.
func Open(ctx context.Context, cache, suite, architecture string) (*Archive, error) {
	a := &Archive{
		Suite: suite, Architecture: architecture, cache: cache,
		directory: filepath.Join(cache, "archives", suite+"-"+architecture),
	}
	for _, part := range []string{"lists/partial", "cache/archives/partial", "empty"} {
		if err := os.MkdirAll(filepath.Join(a.directory, part), 0o755); err != nil {
			return nil, fmt.Errorf("making a place for the lists of %s: %w", suite, err)
		}
	}
	unlock, err := lock(filepath.Join(a.directory, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if info, err := os.Stat(a.stamp()); err == nil && time.Since(info.ModTime()) < listsAge {
		reason, err := os.ReadFile(a.stamp())
		a.Unverified = string(reason)
		return a, err
	}
	return a, a.update(ctx)
}

// Refresh makes the next Open of this archive download its lists again.
func (a *Archive) Refresh() error {
	err := os.Remove(a.stamp())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// stamp is a file that is as old as the lists and says why they were not verified.
func (a *Archive) stamp() string { return filepath.Join(a.directory, "unverified") }

func (a *Archive) update(ctx context.Context) error {
	mirror, err := mirror(ctx)
	if err != nil {
		return err
	}
	verified := a.updateFrom(ctx, fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, a.Suite))
	if verified != nil {
		// Only a signature may be missing: a release older or newer than what
		// the machine's keyring knows.
		if !strings.Contains(verified.Error(), "NO_PUBKEY") && !strings.Contains(verified.Error(), "EXPKEYSIG") {
			return fmt.Errorf("getting the lists of Debian's %s for %s: %w", a.Suite, a.Architecture, verified)
		}
		a.Unverified = fmt.Sprintf("%s has no valid key of %s", keyring, a.Suite)
		if err := a.updateFrom(ctx, fmt.Sprintf("deb [trusted=yes] %s %s main\n", mirror, a.Suite)); err != nil {
			return fmt.Errorf("getting the lists of Debian's %s for %s: %w", a.Suite, a.Architecture, err)
		}
	}
	return os.WriteFile(a.stamp(), []byte(a.Unverified), 0o644)
}

func (a *Archive) updateFrom(ctx context.Context, line string) error {
	if err := os.WriteFile(a.source(), []byte(line), 0o644); err != nil {
		return err
	}
	_, err := a.run(ctx, "", "apt-get", "update", "-q", "--error-on=any")
	return err
}

func (a *Archive) source() string { return filepath.Join(a.directory, "sources.list") }

// run runs a command of apt on this archive's lists, and returns what it prints.
func (a *Archive) run(ctx context.Context, in, name string, arguments ...string) (string, error) {
	options := []string{
		"Dir::Etc::sourcelist=" + a.source(),
		"Dir::Etc::sourceparts=" + filepath.Join(a.directory, "empty"),
		"Dir::State::lists=" + filepath.Join(a.directory, "lists"),
		"Dir::State::status=/dev/null", // nothing is installed there
		"Dir::Cache=" + filepath.Join(a.directory, "cache"),
		// Images of containers switch these off, and apt would read all lists for each answer.
		"Dir::Cache::pkgcache=pkgcache.bin", "Dir::Cache::srcpkgcache=srcpkgcache.bin",
		"APT::Architecture=" + a.Architecture,
		"APT::Architectures=" + a.Architecture,
		"APT::Sandbox::User=root", // the cache need not be readable for _apt
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=3",
	}
	var all []string
	for _, option := range options {
		all = append(all, "-o", option)
	}
	return output(ctx, in, name, append(all, arguments...)...)
}

// output runs a command and returns what it prints; an error has what it complained about.
func output(ctx context.Context, directory, name string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, arguments...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = directory, &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(append(stdout.Bytes(), stderr.Bytes()...)))
	}
	return stdout.String(), nil
}

// mirror is where the machine's apt has Debian's packages from.
func mirror(ctx context.Context) (string, error) {
	all, err := output(ctx, "", "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", fmt.Errorf("looking for the machine's mirror of Debian: %w", err)
	}
	for line := range strings.Lines(all) {
		// Debian's own packages, not its security updates or somebody else's archive.
		if uri, own := strings.CutPrefix(line, "Debian Debian "); own {
			return strings.TrimSpace(uri), nil
		}
	}
	return "", errors.New("looking for the machine's mirror of Debian: apt's sources name none, or `apt-get update` was never run")
}

// lock waits until no other process holds the lock of this name.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}
