package loadbalancer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// largestFile is the size of a configuration, in bytes, beyond which it is taken for a
// mistake.
const largestFile = 1 << 20

// File is a configuration in a file. One that is missing at the start is waited for; one
// that is malformed, or vanishes, leaves the last good one in force.
type File struct {
	path string
	log  *slog.Logger

	mu  sync.Mutex
	err error
}

// NewFile returns the configuration in the file at path.
func NewFile(path string, log *slog.Logger) *File {
	return &File{path: path, log: log.With("file", path), err: fmt.Errorf("%s has not been read yet", path)}
}

// Check returns nil while the file is good, else what is wrong.
func (f *File) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Run calls deliver with the configuration, and each time that it has changed, until ctx
// ends.
func (f *File) Run(ctx context.Context, deliver func(*Config)) {
	var text []byte
	var good bool
	filewatch.Follower{Path: f.path, Most: largestFile}.Run(ctx, func(fresh []byte, err error) {
		if err != nil {
			f.fail(err, good)
			return
		}
		if text != nil && bytes.Equal(text, fresh) && f.Check() == nil {
			return
		}
		text = fresh
		config, err := Parse(fresh)
		if err != nil {
			f.fail(err, good)
			return
		}
		good = true
		f.become(nil)
		f.log.Info("configuration of load balancers read", "pools", len(config.Pools))
		deliver(config)
	})
}

func (f *File) fail(err error, good bool) {
	err = fmt.Errorf("reading %s: %w", f.path, err)
	switch {
	case good:
		err = fmt.Errorf("%w; what it said before stays in force", err)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w; waiting for it", err)
	}
	f.become(err)
}

func (f *File) become(err error) {
	f.mu.Lock()
	before := f.err
	f.err = err
	f.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		f.log.Error("configuration of load balancers is not good", "err", err)
	}
}
