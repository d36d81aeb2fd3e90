// Package install puts the CNI plugin on a node: its binaries into the runtime's
// directory of plugins, then the network's configuration into the directory
// where the runtime looks for one.
//
// What a runtime or another process sees at any moment, also after a kill or a
// power failure, is the old file or the new one, whole: every file is written
// under a temporary name beside its place, brought to the disk, and renamed.
// Files that are as they should be are not touched.
package install

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
)

// Installer knows the directories of one node. Set the fields before the first
// call; the methods may be called from several goroutines, and several
// processes may work on the same directories.
type Installer struct {
	// Log gets every change. Nil means no log.
	Log *slog.Logger

	// SourceDir is where the binaries flatnet and flatnet-ipam are taken from:
	// beside flatnetd.
	SourceDir string
	// BinDir is where the runtime executes plugins from, /opt/cni/bin. ""
	// installs no binaries.
	BinDir string
	// ConfDir is where the runtime looks for networks, /etc/cni/net.d. ""
	// writes no configuration.
	ConfDir string

	// Step, if not nil, is called before every change on the disk with what is
	// about to be done; an error takes the place of the change. It is for tests
	// of faults.
	Step func(operation string) error

	mu       sync.Mutex
	verified map[string]comparison // by name of the binary
}

// binaries are what is installed, by name.
func binaries() []string { return []string{"flatnet", "flatnet-ipam"} }

// Sync installs the binaries and then writes the configuration, and returns
// what it changed, one line each: nothing where all was well. Directories that
// are missing are made, with mode 0755. What an interrupted run left behind is
// removed once it is a minute old.
//
// It fails where a file cannot be written, where the network is not one that the
// plugin would accept (see [Conflist]), and where 10-flatnet.conflist exists and
// is of another plugin or another network; then that file stays as it is.
// Without the binaries there is no configuration: a runtime that finds one
// starts pods.
func (i *Installer) Sync(ctx context.Context, n Network) (changes []string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.writer()
	if i.BinDir != "" {
		if err := i.syncBinaries(ctx, w); err != nil {
			return w.changes, err
		}
	}
	if i.ConfDir != "" {
		if err := i.syncConflist(ctx, w, n); err != nil {
			return w.changes, err
		}
	}
	return w.changes, nil
}

// Remove removes the configuration, the binaries and leftovers of interrupted
// writes, and returns their paths. A configuration is flatnet's where it names a
// plugin of type flatnet; a binary where Go's build information says so, or
// where it equals the one in SourceDir. Whatever else has one of the names
// stays, and so do the directories and a binary that is the one in SourceDir.
// What is missing is no error.
//
// Runtimes need the binary to delete the pods that it made: with pods on the
// node, Remove is too early.
func (i *Installer) Remove() (removed []string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.writer()
	var errs []error
	if i.ConfDir != "" {
		errs = append(errs, i.removeConflist(w), w.sweep(i.ConfDir, 0))
	}
	if i.BinDir != "" {
		errs = append(errs, i.removeBinaries(w), w.sweep(i.BinDir, 0))
	}
	return w.removed, errors.Join(errs...)
}

func (i *Installer) writer() *writer {
	log := i.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	step := i.Step
	if step == nil {
		step = func(string) error { return nil }
	}
	return &writer{log: log, step: step}
}

// conflist is the path of the configuration.
func (i *Installer) conflist() string { return filepath.Join(i.ConfDir, conflistName) }

// ownNames are the names of all files that are installed.
func ownNames() []string { return slices.Concat(binaries(), []string{conflistName}) }
