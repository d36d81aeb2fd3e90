// Command pin writes the module files of a version of Kubernetes, from which
// `make cluster CLUSTER="-kubernetes 1.37"` builds it:
//
//	cd test/e2e && go run ./pin v1.37.2
//
// The directory is named after the minor release, and replaces an older patch
// of the same.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pin vMAJOR.MINOR.PATCH (go list -m -versions k8s.io/kubernetes says which there are)")
		os.Exit(2)
	}
	if err := pin(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pin:", err)
		os.Exit(1)
	}
}

func pin(version string) error {
	parts := regexp.MustCompile(`^v1\.(\d+)(\.\d+.*)$`).FindStringSubmatch(version)
	if parts == nil {
		return fmt.Errorf("%s is not a version of Kubernetes", version)
	}
	minor, published := "1."+parts[1], "v0."+parts[1]+parts[2]
	source, err := download(version)
	if err != nil {
		return err
	}
	upstream, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return fmt.Errorf("reading what Kubernetes requires: %w", err)
	}
	sums, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return fmt.Errorf("reading what Kubernetes requires: %w", err)
	}
	directory := filepath.Join("kubernetes", minor)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("making a place for module files: %w", err)
	}
	text, err := module(minor, version, published, string(upstream))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "go.mod"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing module file: %w", err)
	}
	if err := os.WriteFile(filepath.Join(directory, "go.sum"), sums, 0o644); err != nil {
		return fmt.Errorf("writing sums of modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(source, "test", "utils", "image", "manifest.go"))
	if err != nil {
		return fmt.Errorf("reading which images Kubernetes' tests want: %w", err)
	}
	images, err := references(string(list))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "images"), []byte(images), 0o644); err != nil {
		return fmt.Errorf("writing list of images: %w", err)
	}
	// Adds what the modules require, and drops the sums of what is not built.
	if _, err := command(directory, "mod", "tidy"); err != nil {
		return err
	}
	fmt.Println(directory)
	return nil
}

// download returns the directory with Kubernetes' source.
func download(version string) (string, error) {
	output, err := command(".", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		return "", fmt.Errorf("reading where the source is: %w", err)
	}
	return module.Dir, nil
}

func command(directory string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = directory
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var problems strings.Builder
	cmd.Stderr = &problems
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, problems.String())
	}
	return output, nil
}
