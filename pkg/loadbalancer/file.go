package loadbalancer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

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
	// A ConfigMap's files are symbolic links through ..data.
	watching := filewatch.NewWatching(func(name string) bool { return name == filepath.Base(f.path) || name == "..data" })
	defer watching.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var text []byte
	var good bool
	for {
		polled := false
		select {
		case <-ctx.Done():
			return
		case <-watching.Changed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(filewatch.Settle):
			}
			if !watching.Calm() {
				continue // there will be another change
			}
		case <-timer.C:
			polled = text != nil
		}
		// Watch first, then read: no change is missed in between.
		next := filewatch.Poll
		if watching.Ensure(filepath.Dir(f.path)) != nil {
			next = filewatch.PollUnwatched
		}
		timer.Reset(next)
		fresh, err := filewatch.Read(f.path, largestFile)
		if !watching.Calm() || polled && filewatch.Young(f.path) {
			timer.Reset(filewatch.PollUnwatched)
			continue
		}
		if err != nil {
			f.fail(err, good)
			continue
		}
		if text != nil && bytes.Equal(text, fresh) && f.Check() == nil {
			continue
		}
		text = fresh
		config, err := Parse(fresh)
		if err != nil {
			f.fail(err, good)
			continue
		}
		good = true
		f.become(nil)
		f.log.Info("configuration of load balancers read", "pools", len(config.Pools))
		deliver(config)
	}
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
