// Package install puts the CNI plugin on a node: its binaries into the runtime's
// directory of plugins, then the network's configuration into the directory
// where the runtime looks for one.
//
// What a runtime or another process sees at any moment, also after a kill or a
// power failure, is the old file or the new one, whole: every file is written
// under a temporary name beside its place, brought to the disk, and renamed.
package install

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// Installer knows the directories of one node. Set the fields before the first
// call; the methods may be called from several goroutines, and several
// processes may work on the same directories.
type Installer struct {
	Log *slog.Logger // required

	// SourceDir is where the binaries flatnet and flatnet-ipam are taken from:
	// beside flatnetd.
	SourceDir string
	// BinDir is where the runtime executes plugins from, /opt/cni/bin. ""
	// installs no binaries, and looks for no portmap.
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

// Finding is something on the disk that is not as it should be.
type Finding struct {
	Path   string // of the file
	What   string // what is wrong with it, to be read behind the path
	Advice string // what the operator is to do; "" where Sync repairs it
}

// Repairable says whether Sync puts it right.
func (f Finding) Repairable() bool { return f.Advice == "" }

// String is one line: path, what is wrong, what to do.
func (f Finding) String() string {
	if f.Repairable() {
		return f.Path + " " + f.What
	}
	return f.Path + " " + f.What + ": " + f.Advice
}

type comparison struct{}

// Sync makes the disk be as it should be.
func (i *Installer) Sync(ctx context.Context, n Network) (changes []string, err error) {
	return nil, errors.ErrUnsupported
}

// Check says what is not as it should be.
func (i *Installer) Check(n Network) []Finding { return nil }

// Remove removes what is flatnet's.
func (i *Installer) Remove() (removed []string, err error) { return nil, errors.ErrUnsupported }

// Watch calls changed when something changed.
func (i *Installer) Watch(ctx context.Context, changed func()) error { return errors.ErrUnsupported }
