package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// versions are what a tag of an image can be, too.
var versions = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,100}$`)

func checkVersion(version string) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("-version %q cannot be the tag of an image: v1.2.3 would be one", version)
	}
	return nil
}

// source is what is built.
type source struct {
	directory string
	time      time.Time // of the commit: all files have it
	toolchain string    // go1.2.3, the one that the image is built with
}

// commitOf describes the commit that is checked out. What is not committed cannot be
// released: nobody could build it again.
func commitOf(ctx context.Context, root string) (source, error) {
	changed, err := git(ctx, root, "status", "--porcelain")
	if err != nil {
		return source{}, err
	}
	if changed != "" {
		return source{}, fmt.Errorf("a release is of a commit, and this is in none:\n%s", changed)
	}
	seconds, err := git(ctx, root, "log", "-1", "--format=%ct")
	if err != nil {
		return source{}, err
	}
	since, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return source{}, fmt.Errorf("reading the commit's time: %w", err)
	}
	toolchain, err := toolchainOf(filepath.Join(root, "deploy", "image", "Dockerfile"))
	return source{directory: root, time: time.Unix(since, 0).UTC(), toolchain: toolchain}, err
}

// toolchainOf is the Go that the Dockerfile has: the image's binaries are those of the
// release then.
func toolchainOf(dockerfile string) (string, error) {
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return "", err
	}
	base := regexp.MustCompile(`(?m)^ARG BUILD_BASE=golang:(\d+\.\d+\.\d+)-`).FindSubmatch(text)
	if base == nil {
		return "", errors.New("deploy/image/Dockerfile has no ARG BUILD_BASE=golang:VERSION-…, which says what Go to build with")
	}
	return "go" + string(base[1]), nil
}

// copySource writes the commit's files to another directory.
func copySource(ctx context.Context, root, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	archive := exec.CommandContext(ctx, "git", "-C", root, "archive", "HEAD")
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", to)
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return err
	}
	archive.Stderr, unpack.Stderr = os.Stderr, os.Stderr
	if err := archive.Start(); err != nil {
		return fmt.Errorf("copying the source: %w", err)
	}
	if err := errors.Join(unpack.Run(), archive.Wait()); err != nil {
		return fmt.Errorf("copying the source: %w", err)
	}
	return nil
}

func git(ctx context.Context, root string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", root}, arguments...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
