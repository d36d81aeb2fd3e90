package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// buildFlatnet builds bin/flatnet if it is missing or older than the source.
func buildFlatnet(root string) error {
	binary := filepath.Join(root, "bin", "flatnet")
	stale, err := older(binary, root)
	if err != nil || !stale {
		return err
	}
	fresh := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer os.Remove(fresh)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", fresh, "./cmd/flatnet")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building flatnet: %w\n%s", err, output)
	}
	// Another test may be executing the old one: it is replaced, not written to.
	return os.Rename(fresh, binary)
}

// older says whether a binary was built before a source file was changed.
func older(binary, root string) (bool, error) {
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
