package debian

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Depends are the packages that must be there for a package to work, itself
// first, as far as take says yes: what it says no to is not followed further.
// Of alternatives the last counts.
func (a *Archive) Depends(ctx context.Context, name string, take func(name string) bool) ([]string, error) {
	// One question for all: apt takes seconds to begin an answer.
	text, err := a.run(ctx, "", "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests",
		"--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", name)
	if err != nil {
		return nil, fmt.Errorf("looking for what %s of %s depends on: %w", name, a.Suite, err)
	}
	needs := parseDepends(text)
	var all []string
	for open := []string{name}; len(open) > 0; {
		next := open[0]
		open = open[1:]
		if slices.Contains(all, next) {
			continue
		}
		all = append(all, next)
		for _, of := range needs[next] {
			if take(of) {
				open = append(open, of)
			}
		}
	}
	return all, nil
}

// parseDepends reads what `apt-cache depends` prints: a package's name, and below
// it what it needs, indented.
func parseDepends(text string) map[string][]string {
	needs := map[string][]string{}
	of := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line != "" && line[0] != ' ' {
			of = line
			continue
		}
		kind, on, found := strings.Cut(strings.TrimSpace(line), ": ")
		// "|Depends" is followed by its alternatives; "<name>" is a virtual package.
		if found && (kind == "Depends" || kind == "PreDepends") && !strings.HasPrefix(on, "<") {
			needs[of] = append(needs[of], on)
		}
	}
	return needs
}

// Unpack downloads packages and unpacks them into a directory, without running
// anything of theirs.
func (a *Archive) Unpack(ctx context.Context, into string, names ...string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return fmt.Errorf("making a place for packages: %w", err)
	}
	files, err := os.MkdirTemp(a.directory, "download-")
	if err != nil {
		return fmt.Errorf("making a place for packages: %w", err)
	}
	defer os.RemoveAll(files)
	if _, err := a.run(ctx, files, "apt-get", append([]string{"download", "-q"}, names...)...); err != nil {
		return fmt.Errorf("downloading %s of %s: %w", strings.Join(names, ", "), a.Suite, err)
	}
	packages, err := filepath.Glob(filepath.Join(files, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range packages {
		if _, err := output(ctx, "", "dpkg-deb", "-x", file, into); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}
