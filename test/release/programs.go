package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs are those that one archive has, for each platform.
type programs struct {
	name      string // of the archives
	binaries  []string
	platforms []platform
}

// platform is one that Go compiles for.
type platform struct{ os, architecture string }

func (p platform) String() string { return p.os + "/" + p.architecture }

// forNodes are the programs of nodes.
func forNodes() programs {
	return programs{"flatnet", []string{"flatnet", "flatnet-ipam", "flatnetd", "flatnet-bgp"}, []platform{{"linux", "amd64"}, {"linux", "arm64"}}}
}

// forUsers is the plugin of kubectl, for the machines that kubectl runs on.
func forUsers() programs {
	return programs{"kubectl-flatnet", []string{"kubectl-flatnet"}, []platform{
		{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"},
	}}
}

// directory is the only one in the archive, and the archive's name without its ending.
func (p programs) directory(version string, at platform) string {
	return fmt.Sprintf("%s-%s-%s-%s", p.name, version, at.os, at.architecture)
}

// archive is the name of a platform's archive. Windows opens a zip without other programs.
func (p programs) archive(version string, at platform) string {
	if at.os == "windows" {
		return p.directory(version, at) + ".zip"
	}
	return p.directory(version, at) + ".tar.gz"
}

// executable is what a binary is called on a platform.
func (p platform) executable(binary string) string {
	if p.os == "windows" {
		return binary + ".exe"
	}
	return binary
}

// compile writes the archive of programs for a platform.
func (b build) compile(ctx context.Context, p programs, at platform) error {
	scratch, err := os.MkdirTemp("", "flatnet-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	binaries := map[string][]byte{}
	for _, binary := range p.binaries {
		path := filepath.Join(scratch, binary)
		// As deploy/image/Dockerfile does it, so that the image has the same files.
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+b.version, "-o", path, "./cmd/"+binary)
		cmd.Dir, cmd.Stdout, cmd.Stderr = b.source.directory, os.Stderr, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+at.os, "GOARCH="+at.architecture, "GOAMD64=v1", "GOARM64=v8.0",
			"GOFLAGS=", "GOEXPERIMENT=", "GOTOOLCHAIN="+b.source.toolchain)
		if b.cache != "" {
			cmd.Env = append(cmd.Env, "GOCACHE="+b.cache)
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", binary, err)
		}
		if binaries[binary], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	return b.pack(p, at, binaries)
}

// pack writes the archive of binaries, and the license that they are under.
func (b build) pack(p programs, at platform, binaries map[string][]byte) error {
	license, err := os.ReadFile(filepath.Join(b.source.directory, "LICENSE"))
	if err != nil {
		return err
	}
	directory := p.directory(b.version, at)
	files := []file{{directory + "/LICENSE", 0o644, license}}
	for name, content := range binaries {
		files = append(files, file{directory + "/" + at.executable(name), 0o755, content})
	}
	return b.archive(p.archive(b.version, at), files)
}
