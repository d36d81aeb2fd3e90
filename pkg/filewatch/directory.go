// Package filewatch knows when a file in a directory has got new content that is whole, and
// reads it.
package filewatch

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Directory watches the entries of a directory through inotify(7).
//
// It is not the file that is watched, because a file is rarely changed in
// place: an editor renames a new one over it, and the kubelet swaps the symbolic
// link ..data of a ConfigMap's directory. And it is not fsnotify that watches,
// because that tells of every write: a file being written in several of them is
// at times a shorter list that is valid, and what is not in it would be dropped for a moment.
// inotify tells of the end of the writing as well.
type Directory struct {
	path string
	file *os.File
	stat os.FileInfo

	mu     sync.Mutex // of who reads events
	buffer []byte
}

// changes are what may give a name in the directory another content, or the
// path another directory.
const changes = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
	unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

// Watch begins to watch the directory at path.
func Watch(path string) (*Directory, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("starting to watch directory %s: %w", path, err)
	}
	// Non-blocking, so that Close ends a Read.
	d := &Directory{path: path, file: os.NewFile(uintptr(fd), "inotify"), buffer: make([]byte, 64<<10)}
	// The status first: if the directory is exchanged in between, it is seen
	// to be another one, and watched again.
	if d.stat, err = os.Stat(path); err == nil {
		_, err = unix.InotifyAddWatch(fd, path, changes|unix.IN_ONLYDIR)
	}
	if err != nil {
		d.file.Close()
		return nil, fmt.Errorf("watching directory %s: %w", path, err)
	}
	return d, nil
}

// Stale reports whether the path no longer leads to the directory watched.
func (d *Directory) Stale() bool {
	stat, err := os.Stat(d.path)
	return err != nil || !os.SameFile(stat, d.stat)
}

// Close ends the watching.
func (d *Directory) Close() { d.file.Close() }

// Forward calls notify with the name of each entry that may have changed, an
// empty name if it may be any of them, until the directory is closed. It tells
// whether somebody is writing to it, the end of which will be another change.
func (d *Directory) Forward(notify func(name string, writing bool)) {
	events, err := d.file.SyscallConn()
	for err == nil {
		err = events.Read(func(fd uintptr) bool { return d.take(int(fd), notify) })
	}
}

// CatchUp calls notify with all that has happened by now, as Forward would some time
// later.
func (d *Directory) CatchUp(notify func(name string, writing bool)) {
	if events, err := d.file.SyscallConn(); err == nil {
		_ = events.Control(func(fd uintptr) {
			for d.take(int(fd), notify) {
			}
		})
	}
}

// take reads some events, and reports whether there were any.
func (d *Directory) take(fd int, notify func(name string, writing bool)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := unix.Read(fd, d.buffer)
	if err != nil {
		return false
	}
	for events := d.buffer[:n]; len(events) >= unix.SizeofInotifyEvent; {
		// struct inotify_event: wd, mask, cookie, len, name
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:end])
		notify(name, mask&unix.IN_MODIFY != 0 || mask&unix.IN_CREATE != 0 && d.unwritten(name))
		events = events[end:]
	}
	return true
}

// unwritten reports whether an entry that has just been created is a file that
// somebody has opened to write to it, who will close it. A link is complete.
func (d *Directory) unwritten(name string) bool {
	stat, err := os.Lstat(filepath.Join(d.path, name))
	if err != nil || !stat.Mode().IsRegular() {
		return false
	}
	sys, ok := stat.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 1
}
