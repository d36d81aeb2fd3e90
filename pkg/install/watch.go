package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long changes are collected before they are told. Installing and
// removing packages change several files at once.
const settle = 50 * time.Millisecond

// Watch calls changed once when it has begun to watch, and after that whenever
// something happened in BinDir or ConfDir that [Installer.Check] may see: to
// flatnet's own files, or to another configuration. What happens
// within 50 ms is told once; changed is never called twice at a time. Changes
// that Sync makes are told as well.
//
// A directory that does not exist yet, or does not exist any more, is waited
// for. What no notification tells, such as that a directory above was renamed,
// is left to Check from time to time.
//
// It returns the context's error when that ends, and others where the kernel
// refuses to watch, for example because fs.inotify.max_user_instances is
// used up.
func (i *Installer) Watch(ctx context.Context, changed func()) error {
	w, err := i.beginWatch()
	if err != nil {
		return err
	}
	defer w.notify.Close()
	changed()
	due := time.NewTimer(0)
	due.Stop()
	defer due.Stop()
	pending := false
	for {
		relevant := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
			pending = false
			changed()
		case event := <-w.notify.Events:
			if relevant, err = w.handle(event); err != nil {
				return err
			}
		case err := <-w.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watching %s and %s: %w", i.BinDir, i.ConfDir, err)
			}
			relevant = true // anything may have been lost
		}
		// The first change sets the time: a stream of them delays nothing.
		if relevant && !pending {
			pending = true
			due.Reset(settle)
		}
	}
}

// watch follows directories that may come and go.
type watch struct {
	installer *Installer
	notify    *fsnotify.Watcher
	at        map[string]string // directory → where it is watched: there, or at the nearest one above it that exists
}

// beginWatch watches what is there to be watched. Whoever calls it closes notify.
func (i *Installer) beginWatch() (*watch, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s and %s: %w", i.BinDir, i.ConfDir, err)
	}
	w := &watch{installer: i, notify: notify, at: map[string]string{}}
	if err := w.follow(); err != nil {
		notify.Close()
		return nil, err
	}
	return w, nil
}

func (w *watch) directories() []string {
	var all []string
	for _, d := range []string{w.installer.BinDir, w.installer.ConfDir} {
		if d != "" {
			all = append(all, filepath.Clean(d))
		}
	}
	return all
}

// handle says whether an event is of interest.
func (w *watch) handle(event fsnotify.Event) (relevant bool, err error) {
	before := maps.Clone(w.at)
	lost := event.Has(fsnotify.Remove|fsnotify.Rename) && w.forget(event.Name)
	if err := w.follow(); err != nil {
		return false, err
	}
	directory, name := filepath.Dir(event.Name), filepath.Base(event.Name)
	return lost || !maps.Equal(before, w.at) ||
		isIn(directory, w.installer.BinDir) && slices.Contains(binaries(), name) ||
		isIn(directory, w.installer.ConfDir) && isConfiguration(name), nil
}

func isIn(directory, configured string) bool {
	return configured != "" && directory == filepath.Clean(configured)
}

// forget stops watching a directory that was removed or moved away, and says
// whether it was watched. Of one that was moved, notifications would go on.
func (w *watch) forget(path string) (watched bool) {
	for directory, at := range w.at {
		if at == path {
			_ = w.notify.Remove(path)
			w.at[directory] = ""
			watched = true
		}
	}
	return watched
}

// follow watches every directory as near as it can be.
func (w *watch) follow() error {
	for _, directory := range w.directories() {
		for {
			near := nearest(directory)
			if near == w.at[directory] {
				break
			}
			// It may be gone by now, or a nearer one may have come: ask again.
			switch err := w.notify.Add(near); {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return fmt.Errorf("watching %s: %w", near, err)
			default:
				before := w.at[directory]
				w.at[directory] = near
				w.release(before)
			}
		}
	}
	return nil
}

// release stops watching a directory that none needs any more.
func (w *watch) release(path string) {
	for _, at := range w.at {
		if at == path {
			return
		}
	}
	if path != "" {
		// It may have gone, and its watch with it.
		_ = w.notify.Remove(path)
	}
}

// nearest returns the directory or the nearest one above it that exists.
func nearest(directory string) string {
	for {
		info, err := os.Stat(directory)
		if parent := filepath.Dir(directory); (err == nil && info.IsDir()) || parent == directory {
			return directory
		}
		directory = filepath.Dir(directory)
	}
}
