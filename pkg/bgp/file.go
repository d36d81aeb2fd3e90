package bgp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

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

// Text is the last good configuration as it was written.
func (f *File) Text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.text)
}

// Remember takes what a run before has had from [File.Text], until the file is read and good.
func (f *File) Remember(text []byte) {
	c, err := Parse(text)
	if err != nil {
		return // of another version
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.good, f.text = c, text
}

// Run reads the file, at first and when it changes, and calls changed where anything is
// new, until ctx ends.
func (f *File) Run(ctx context.Context, changed func()) error {
	filewatch.Follower{Path: f.path, Most: largestFile}.Run(ctx, func(text []byte, err error) {
		if f.take(text, err) {
			changed()
		}
	})
	return nil
}

// Read reads the file once, for those who cannot wait for Run.
func (f *File) Read() { f.take(filewatch.Read(f.path, largestFile)) }

// take reports whether anything is new.
func (f *File) take(text []byte, err error) bool {
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
