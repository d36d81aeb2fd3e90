package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build is one build of everything.
type build struct {
	source  source
	version string
	out     string // is made anew
	cache   string // Go's; "" is the user's
}

const sumsName = "SHA256SUMS"

// image is the name of the image in the manifests, and latest how they have it.
const (
	image  = "ghcr.io/flatnet-cni/flatnet"
	latest = image + ":latest"
)

// binaries are what a node gets, and architectures the nodes.
func binaries() []string      { return []string{"flatnet", "flatnet-ipam", "flatnetd", "flatnet-bgp"} }
func architectures() []string { return []string{"amd64", "arm64"} }

func (b build) all(ctx context.Context) error {
	if err := os.RemoveAll(b.out); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	for _, architecture := range architectures() {
		if err := b.programs(ctx, architecture); err != nil {
			return fmt.Errorf("building for %s: %w", architecture, err)
		}
	}
	if err := b.manifests(); err != nil {
		return fmt.Errorf("writing the manifests: %w", err)
	}
	if err := b.chart(); err != nil {
		return fmt.Errorf("writing the chart: %w", err)
	}
	return b.sums()
}

// programs writes the archive of binaries for an architecture.
func (b build) programs(ctx context.Context, architecture string) error {
	scratch, err := os.MkdirTemp("", "flatnet-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	name := fmt.Sprintf("flatnet-%s-linux-%s", b.version, architecture)
	var files []file
	for _, binary := range binaries() {
		path := filepath.Join(scratch, binary)
		// As deploy/image/Dockerfile does it, so that the image has the same files.
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+b.version, "-o", path, "./cmd/"+binary)
		cmd.Dir, cmd.Stdout, cmd.Stderr = b.source.directory, os.Stderr, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOAMD64=v1", "GOARM64=v8.0",
			"GOFLAGS=", "GOEXPERIMENT=", "GOTOOLCHAIN="+b.source.toolchain)
		if b.cache != "" {
			cmd.Env = append(cmd.Env, "GOCACHE="+b.cache)
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", binary, err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, file{name + "/" + binary, 0o755, content})
	}
	license, err := os.ReadFile(filepath.Join(b.source.directory, "LICENSE"))
	if err != nil {
		return err
	}
	return b.archive(name, append(files, file{name + "/LICENSE", 0o644, license}))
}

// manifests writes deploy/ as an archive, and as the one file, with the version's image.
func (b build) manifests() error {
	name := fmt.Sprintf("flatnet-%s-manifests", b.version)
	deploy := filepath.Join(b.source.directory, "deploy")
	files, err := b.below(deploy, name)
	if err != nil {
		return err
	}
	plain, err := os.ReadFile(filepath.Join(deploy, "flatnet.yaml"))
	if err != nil {
		return err
	}
	pinned := pin(plain, b.version)
	if bytes.Equal(plain, pinned) {
		return fmt.Errorf("deploy/flatnet.yaml does not name the image %s", latest)
	}
	if err := os.WriteFile(filepath.Join(b.out, "flatnet-"+b.version+".yaml"), pinned, 0o644); err != nil {
		return err
	}
	return b.archive(name, files)
}

// below are the files of a directory under the name that it has in an archive, pinned.
func (b build) below(directory, name string) (files []file, err error) {
	err = filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(relative, "image"+string(filepath.Separator)) {
			return nil // is built from the source
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		files = append(files, file{name + "/" + filepath.ToSlash(relative), mode, pin(content, b.version)})
		return nil
	})
	return files, err
}

// pin has manifests name the version's image, and the chart its version.
func pin(manifest []byte, version string) []byte {
	manifest = bytes.ReplaceAll(manifest, []byte(latest), []byte(image+":"+version))
	return bytes.ReplaceAll(manifest, []byte(unreleased), fmt.Appendf(nil, "\nversion: %q\nappVersion: %q\n", chartVersion(version), version))
}

func (b build) archive(name string, files []file) error {
	content, err := tarball(b.source.time, files)
	if err != nil {
		return fmt.Errorf("archiving %s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(b.out, name+".tar.gz"), content, 0o644)
}

// sums lists the sums of all files, as sha256sum does.
func (b build) sums() error {
	entries, err := os.ReadDir(b.out)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(b.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), e.Name())
	}
	return os.WriteFile(filepath.Join(b.out, sumsName), text.Bytes(), 0o644)
}
