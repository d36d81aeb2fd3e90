package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// maxFileSize is the size of a nodes file, in bytes, beyond which it is taken
// for a mistake. The largest list that Judge accepts has about 10 MiB, 5,000
// nodes have 0.6; and the YAML parser takes up to 150 bytes of memory for one.
const maxFileSize = 16 << 20

// File is a Source that reads the nodes from a YAML file:
//
//	nodes:
//	- name: n1
//	  zone: a # may be left out
//	  addresses: [172.30.0.1, "fd00:30::1"]
//	  podCIDRs: [10.244.1.0/24, "fd00:244:1::/64"]
//
// A file that is missing at the start is waited for. One that is malformed, or
// vanishes, or lists no node, leaves the last good list as it is.
type File struct {
	path string
	log  *slog.Logger
	poll time.Duration

	mu  sync.Mutex
	err error // what Check returns
}

// NewFile returns a source that reads the nodes from the file at path.
func NewFile(path string, log *slog.Logger) *File {
	return &File{path: path, log: log.With("file", path), poll: filewatch.Poll, err: fmt.Errorf("nodes file %s has not been read yet", path)}
}

// Check implements Source. The error has the line and what is wrong with it.
func (f *File) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Run implements Source. A change is delivered some milliseconds after the file
// is closed by its writer, or renamed into place.
func (f *File) Run(ctx context.Context, deliver func([]Node)) error {
	reading := reading{file: f, deliver: deliver}
	filewatch.Follower{Path: f.path, Most: maxFileSize, Poll: f.poll, Unwatched: func(err error) {
		f.log.Warn("nodes file cannot be watched: reading it every second", "err", err)
	}}.Run(ctx, reading.take)
	return nil
}

// reading is what Run knows of the file.
type reading struct {
	file    *File
	deliver func([]Node)
	text    []byte // read last, and what was in it:
	nodes   []Node
	err     error
	good    []Node // delivered last
}

// take delivers the nodes of the file if they have changed.
func (r *reading) take(text []byte, err error) {
	if err != nil {
		r.fail(err)
		return
	}
	if r.text == nil || !bytes.Equal(text, r.text) {
		r.text = text
		r.nodes, r.err = parseNodes(text)
	}
	if r.err != nil {
		r.fail(r.err)
		return
	}
	r.file.become(nil)
	if r.good == nil || !slices.EqualFunc(r.nodes, r.good, Node.Equal) {
		r.file.log.Info("nodes file read", "nodes", len(r.nodes))
		r.good = r.nodes
		r.deliver(r.nodes)
	}
}

// fail keeps the last good list, and says so once.
func (r *reading) fail(err error) {
	err = fmt.Errorf("reading nodes file %s: %w", r.file.path, err)
	switch {
	case r.good != nil:
		err = fmt.Errorf("%w; the %d nodes read before stay", err, len(r.good))
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w; waiting for it", err)
	}
	r.file.become(err)
}

// become notes the state of the source, and logs it if it is another one.
func (f *File) become(err error) {
	f.mu.Lock()
	before := f.err
	f.err = err
	f.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.log.Error("nodes file is not good", "err", err)
	case err == nil && before != nil:
		f.log.Info("nodes file is good")
	}
}
