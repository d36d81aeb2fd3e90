package attachment

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
	"strings"

	"github.com/fsnotify/fsnotify"
)

// errRemoved says that somebody has removed the directory.
var errRemoved = errors.New("it was removed")

// Watch calls changed with all records, at first and each time when one was written or
// removed, until ctx ends. A record is read when it changes and no other time: it is
// told before the attachment that it describes can send anything. The directory is made
// where it is not there.
func (d *Directory) Watch(ctx context.Context, changed func([]Record)) error {
	for {
		if err := d.watch(ctx, changed); !errors.Is(err, errRemoved) {
			return err
		}
	}
}

// watch is Watch for as long as the directory is the same.
func (d *Directory) watch(ctx context.Context, changed func([]Record)) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("making %s: %w", d.path, err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", d.path, err)
	}
	defer w.Close()
	switch err := w.Add(d.path); {
	case errors.Is(err, fs.ErrNotExist):
		return errRemoved
	case err != nil:
		return fmt.Errorf("watching %s: %w", d.path, err)
	}
	known := map[string]Record{}
	tell := func() { changed(slices.Collect(maps.Values(known))) }
	list := func() error {
		entries, err := os.ReadDir(d.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading %s: %w", d.path, err)
		}
		clear(known)
		for _, e := range entries {
			d.look(known, e.Name())
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
			if e.Name == d.path && e.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
				return errRemoved
			}
			if e.Op != fsnotify.Chmod && d.look(known, filepath.Base(e.Name)) {
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
func (d *Directory) look(known map[string]Record, name string) bool {
	if strings.HasSuffix(name, temporaryMark) {
		return false
	}
	_, before := known[name]
	raw, err := os.ReadFile(filepath.Join(d.path, name))
	var r Record
	if err != nil || json.Unmarshal(raw, &r) != nil {
		delete(known, name)
		return before
	}
	known[name] = r
	return true
}
