package debian

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// GetPrograms returns a directory in which packages of a suite are unpacked, with
// the libraries that they need: a root to take programs from, but none to change
// into, because nothing is configured there. What was unpacked before is taken again.
func GetPrograms(ctx context.Context, cache, suite, architecture string, log io.Writer, names ...string) (string, error) {
	directory := filepath.Join(cache, "programs", suite+"-"+architecture)
	if err := os.MkdirAll(filepath.Dir(directory), 0o755); err != nil {
		return "", fmt.Errorf("making a place for programs: %w", err)
	}
	unlock, err := lock(directory + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	list := strings.Join(names, " ")
	if had, err := os.ReadFile(directory + ".list"); err == nil && string(had) == list {
		return directory, nil
	}
	fmt.Fprintf(log, "getting programs of Debian's %s for %s\n", suite, architecture)
	archive, err := Open(ctx, cache, suite, architecture)
	if err != nil {
		return "", err
	}
	var all []string
	for _, name := range names {
		more, err := archive.Depends(ctx, name, func(name string) bool { return strings.HasPrefix(name, "lib") })
		if err != nil {
			return "", err
		}
		for _, one := range more {
			all = appendNew(all, one)
		}
	}
	if err := os.RemoveAll(directory); err != nil {
		return "", err
	}
	if err := archive.Unpack(ctx, directory, all...); err != nil {
		return "", err
	}
	return directory, os.WriteFile(directory+".list", []byte(list), 0o644)
}

func appendNew(all []string, one string) []string {
	for _, known := range all {
		if known == one {
			return all
		}
	}
	return append(all, one)
}
