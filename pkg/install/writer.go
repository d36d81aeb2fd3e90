package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// leftoverAge is older than anything that is still being written.
const leftoverAge = time.Minute

// writer changes directories, and remembers what it did.
type writer struct {
	log     *slog.Logger
	step    func(string) error
	changes []string // lines
	removed []string // paths
}

func (w *writer) changed(what, path string) {
	w.log.Info(what, "path", path)
	w.changes = append(w.changes, what+" "+path)
}

// replace puts content at a path, in the place of whatever is there except a
// directory. A symbolic link is replaced, not followed; a program that is being
// executed goes on with its old content.
func (w *writer) replace(path string, mode fs.FileMode, content io.Reader) (err error) {
	temporary, err := w.write(path, mode, content)
	if temporary != "" {
		defer func() {
			if err != nil {
				// The first error is the one to tell.
				_ = w.remove(temporary)
			}
		}()
	}
	if err != nil {
		return err
	}
	if err := w.step("fsync " + path); err != nil {
		return err
	}
	if err := toDisk(temporary); err != nil {
		return err
	}
	if err := w.step("rename " + path); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("putting %s in place: %w", path, withoutPaths(err))
	}
	temporary = ""
	return w.syncDirectory(filepath.Dir(path))
}

// write writes a file under a temporary name beside path and returns that name,
// with an error as well where the file exists already.
func (w *writer) write(path string, mode fs.FileMode, content io.Reader) (temporary string, err error) {
	if err := w.step("create " + path); err != nil {
		return "", err
	}
	// A child that another goroutine starts meanwhile would have the file open
	// for writing until it executes its own program, and as long the kernel
	// refuses to execute this one ("text file busy", golang.org/issue/22315).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	// A runtime reads files that end in .conf, .conflist or .json; these do not.
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+temporaryMark+"*")
	if err != nil {
		return "", fmt.Errorf("creating a temporary file for %s: %w%s", path, withoutPaths(err), detachedHint(filepath.Dir(path)))
	}
	defer func() {
		if closing := file.Close(); err == nil && closing != nil {
			err = fmt.Errorf("writing %s: %w", path, withoutPaths(closing))
		}
	}()
	if err := w.step("write " + path); err != nil {
		return file.Name(), err
	}
	if _, err := io.Copy(file, content); err != nil {
		return file.Name(), fmt.Errorf("writing %s: %w", path, withoutPaths(err))
	}
	// Not left to the umask, which hardened nodes set to 0077.
	if err := file.Chmod(mode); err != nil {
		return file.Name(), fmt.Errorf("setting the mode of %s: %w", path, withoutPaths(err))
	}
	return file.Name(), nil
}

// remove removes a file; it need not exist.
func (w *writer) remove(path string) error {
	if err := w.step("remove " + path); err != nil {
		return err
	}
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("removing %s: %w", path, withoutPaths(err))
	}
	w.removed = append(w.removed, path)
	return nil
}

// temporaryMark stands between a file's name and the random digits that
// [os.CreateTemp] adds.
const temporaryMark = ".tmp-"

// isTemporary says whether a name is one that write gives.
func isTemporary(name string) bool {
	return slices.ContainsFunc(ownNames(), func(own string) bool {
		digits, found := strings.CutPrefix(name, "."+own+temporaryMark)
		return found && digits != "" && strings.Trim(digits, "0123456789") == ""
	})
}

// sweep removes what interrupted writes left in a directory, where it is at
// least this old.
func (w *writer) sweep(directory string, age time.Duration) error {
	entries, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing %s: %w", directory, withoutPaths(err))
	}
	var errs []error
	for _, entry := range entries {
		if !isTemporary(entry.Name()) || !entry.Type().IsRegular() {
			continue
		}
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			continue // gone by itself, or somebody's who is still at work
		}
		path := filepath.Join(directory, entry.Name())
		if err := w.remove(path); err != nil {
			errs = append(errs, err)
			continue
		}
		w.changed("removed leftover", path)
	}
	return errors.Join(errs...)
}

// makeDirectory makes a directory and those above it, with mode 0755 whatever
// the umask is.
func (w *writer) makeDirectory(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("making directory %s: a file is in its place", path)
		}
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := w.makeDirectory(parent); err != nil {
			return err
		}
	}
	if err := w.step("mkdir " + path); err != nil {
		return err
	}
	switch err := os.Mkdir(path, 0o755); {
	case errors.Is(err, fs.ErrExist): // somebody was faster, or a link leads nowhere, which the next step tells
		return nil
	case err != nil:
		return fmt.Errorf("making directory %s: %w", path, withoutPaths(err))
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", path, withoutPaths(err))
	}
	w.changed("made directory", path)
	return nil
}

func (w *writer) syncDirectory(path string) error {
	if err := w.step("fsync " + path); err != nil {
		return err
	}
	return toDisk(path)
}

// toDisk brings a file or a directory to the disk.
func toDisk(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("bringing %s to the disk: %w", path, withoutPaths(err))
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("bringing %s to the disk: %w", path, withoutPaths(err))
	}
	return nil
}

// detachedHint explains the error in a directory that has been removed while it
// was mounted into flatnetd's container: it is still there and takes no files.
func detachedHint(directory string) string {
	var stat syscall.Stat_t
	if err := syscall.Stat(directory, &stat); err != nil || stat.Nlink != 0 {
		return ""
	}
	return "; the directory was removed on the node while flatnetd had it mounted: restart flatnetd on this node"
}

// withoutPaths is an error of os without operation and path, which the caller
// says in words.
func withoutPaths(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}
