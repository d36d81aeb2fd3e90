package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/feature"
)

// cleanupPatience is how long another flatnetd may take to end. What the cleanup itself
// takes is for its caller to judge: half of one helps nobody.
const cleanupPatience = 10 * time.Second

// Cleanup removes everything that flatnet ever made on the node, pods'
// interfaces included, and nothing else; it returns what it removed, a line
// each. What fails does not keep the rest from being removed. Sysctls stay as
// they are: others may rely on them by now.
func Cleanup(ctx context.Context, c Config, log *slog.Logger) (removed []string, err error) {
	return removeAll(ctx, c, log, features(c, nil, &feature.Shared{Log: log}))
}

func removeAll(ctx context.Context, c Config, log *slog.Logger, all []feature.Feature) (removed []string, err error) {
	// What only the lock brings is not flatnet's of before.
	var own []string
	for _, path := range []string{c.StateDir, lockPath(c.StateDir)} {
		if _, err := os.Lstat(path); err != nil {
			own = append(own, path)
		}
	}
	waiting, enough := context.WithTimeout(ctx, cleanupPatience)
	lock, err := lockNode(waiting, c.StateDir, log)
	enough()
	if err != nil {
		return nil, fmt.Errorf("%w: stop it first, or it would make everything anew", err)
	}
	defer lock.Close()
	var errs []error
	note := func(what []string, err error) {
		removed = append(removed, what...)
		errs = append(errs, err)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(f feature.Feature) bool { return f.Cleanup.Do == nil })
	slices.SortStableFunc(all, func(a, b feature.Feature) int { return cmp.Compare(a.Cleanup.At, b.Cleanup.At) })
	for _, f := range all {
		note(f.Cleanup.Do(ctx))
	}
	note(removeState(c.StateDir))
	removed = slices.DeleteFunc(removed, func(what string) bool { return slices.Contains(own, what) })
	return removed, errors.Join(errs...)
}

// removeState removes the files below the state directory: records,
// reservations, sockets. Another process may have its files there too, if a
// user chose the directory so: what is not flatnet's stays, and the directory.
func removeState(stateDir string) (removed []string, err error) {
	var errs []error
	for _, name := range []string{"attachments", "ipam", bgpStateFile, promiseFile, "shared.lock", "ports.lock", "flatnetd.sock", "flatnetd.lock"} {
		path := filepath.Join(stateDir, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", path, err))
			continue
		}
		removed = append(removed, path)
	}
	if err := os.Remove(stateDir); err == nil {
		removed = append(removed, stateDir)
	}
	return removed, errors.Join(errs...)
}
