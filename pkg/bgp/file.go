package bgp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// largestFile is more than anybody writes.
const largestFile = 1 << 20

// File follows a configuration in a file. One that is not good leaves the last good one
// in force.
type File struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	good *Config
	err  error
	text []byte
}

// NewFile returns one that has not read yet.
func NewFile(path string, log *slog.Logger) *File { return &File{path: path, log: log} }

// Config returns the last good configuration, nil where there is none, and what is wrong
// with the file as it is now.
func (f *File) Config() (*Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.good, f.err
}

// Run reads the file, at first and when it changes, and calls changed where anything is
// new, until ctx ends.
func (f *File) Run(ctx context.Context, changed func()) error {
	name := filepath.Base(f.path)
	// A ConfigMap's files are symbolic links through ..data.
	watching := filewatch.NewWatching(func(entry string) bool { return entry == name || entry == "..data" })
	defer watching.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watching.Changed:
			time.Sleep(filewatch.Settle)
			if !watching.Calm() {
				continue // there will be another change
			}
		case <-timer.C:
		}
		next := filewatch.Poll
		// Watch first, then read: no change is missed in between.
		if err := watching.Ensure(filepath.Dir(f.path)); err != nil {
			next = filewatch.PollUnwatched
		}
		if f.read(watching.Calm) {
			changed()
		}
		timer.Reset(next)
	}
}

// Read reads the file once, for those who cannot wait for Run.
func (f *File) Read() { f.read(func() bool { return true }) }

// read reports whether anything is new.
func (f *File) read(whole func() bool) bool {
	text, err := filewatch.Read(f.path, largestFile)
	if !whole() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.err == nil && f.good != nil && bytes.Equal(text, f.text) {
		return false
	}
	var c *Config
	if err == nil {
		c, err = Parse(text)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
		if f.err != nil && f.err.Error() == err.Error() {
			return false
		}
		f.err = err
		return true
	}
	f.log.Info("configuration of BGP read", "file", f.path, "peers", len(c.Peers))
	f.good, f.err, f.text = c, nil, text
	return true
}
