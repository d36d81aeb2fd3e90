// Package records tells of attachments' records as they come and go. It is apart from
// package attachment because the plugin, which is started anew for every verb, has no
// use for it, nor for what it watches with.
package records

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
)

// errRemoved says that somebody has removed the directory.
var errRemoved = errors.New("it was removed")

// Watch calls changed with all records, at first and each time when one was written or
// removed, until ctx ends. A record is read when it changes and no other time: it is
// told before the attachment that it describes can send anything. The directory is made
// where it is not there.
func Watch(ctx context.Context, d *attachment.Directory, changed func([]attachment.Record)) error {
	for {
		if err := watch(ctx, d.Path(), changed); !errors.Is(err, errRemoved) {
			return err
		}
	}
}

// watch is Watch for as long as the directory is the same.
func watch(ctx context.Context, path string, changed func([]attachment.Record)) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	defer w.Close()
	switch err := w.Add(path); {
	case errors.Is(err, fs.ErrNotExist):
		return errRemoved
	case err != nil:
		return fmt.Errorf("watching %s: %w", path, err)
	}
	known := map[string]attachment.Record{}
	tell := func() { changed(slices.Collect(maps.Values(known))) }
	list := func() error {
		entries, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		clear(known)
		for _, e := range entries {
			look(path, known, e.Name())
		}
		tell()
		return nil
	}
	if err := list(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if e.Name == path && e.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
				return errRemoved
			}
			if e.Op != fsnotify.Chmod && look(path, known, filepath.Base(e.Name)) {
				tell()
			}
		case err := <-w.Errors:
			if err != nil { // events were lost
				if err := list(); err != nil {
					return err
				}
			}
		}
	}
}

// look reads a record's file anew, and reports whether there is another record now. A
// name that is not a record's yet is not looked at.
func look(path string, known map[string]attachment.Record, name string) bool {
	if attachment.IsTemporary(name) {
		return false
	}
	_, before := known[name]
	raw, err := os.ReadFile(filepath.Join(path, name))
	var r attachment.Record
	if err != nil || json.Unmarshal(raw, &r) != nil {
		delete(known, name)
		return before
	}
	known[name] = r
	return true
}
