package install

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// module begins the path of the main packages in the build information of
// flatnet's binaries.
const module = "github.com/flatnet-cni/flatnet/cmd/"

// comparison is a pair of files that were found equal. While neither has
// changed, they need not be read again.
type comparison struct{ source, target stamp }

// stamp changes whenever a file's content may have: nobody can set a ctime.
type stamp struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{s.Dev, s.Ino, s.Size, s.Ctim}
}

// settled says whether a file changed so long ago that a further change will
// give it another stamp: the clock of ctime advances every few milliseconds.
func (s stamp) settled() bool {
	return time.Since(time.Unix(s.changed.Unix())) > time.Second
}

func (i *Installer) syncBinaries(ctx context.Context, w *writer) error {
	if err := w.makeDirectory(i.BinDir); err != nil {
		return err
	}
	if err := w.sweep(i.BinDir, leftoverAge); err != nil {
		return err
	}
	for _, name := range binaries() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("installing %s: %w", name, err)
		}
		if err := i.syncBinary(w, name); err != nil {
			return err
		}
	}
	return nil
}

func (i *Installer) syncBinary(w *writer, name string) error {
	wrong, err := i.inspectBinary(name)
	target := filepath.Join(i.BinDir, name)
	switch {
	case err != nil || wrong == "":
		return err
	case wrong == isDirectory:
		return fmt.Errorf("installing %s: it %s: %s", target, wrong, adviceMove)
	}
	source, err := i.openSource(name)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := w.replace(target, 0o755, source); err != nil {
		return err
	}
	w.changed("installed", target)
	return nil
}

func (i *Installer) openSource(name string) (*os.File, error) {
	file, err := os.Open(filepath.Join(i.SourceDir, name))
	if err != nil {
		return nil, fmt.Errorf("reading %s, which is to be installed: %w", filepath.Join(i.SourceDir, name), withoutPaths(err))
	}
	return file, nil
}

// isDirectory is the one thing wrong with a file that cannot be put right by
// putting another in its place.
const isDirectory = "is a directory"

// inspectBinary says what is wrong with an installed binary, "" for nothing. An
// error is one of the source.
func (i *Installer) inspectBinary(name string) (wrong string, err error) {
	source, err := i.openSource(name)
	if err != nil {
		return "", err
	}
	defer source.Close()
	from, err := source.Stat()
	if err != nil {
		return "", fmt.Errorf("reading %s, which is to be installed: %w", source.Name(), withoutPaths(err))
	}
	if !from.Mode().IsRegular() || from.Size() == 0 {
		return "", fmt.Errorf("reading %s, which is to be installed: it is empty or no file", source.Name())
	}
	path := filepath.Join(i.BinDir, name)
	to, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing", nil
	case err != nil:
		return "cannot be read: " + withoutPaths(err).Error(), nil
	case os.SameFile(from, to): // installed there by other means
		return "", nil
	case to.Mode()&fs.ModeSymlink != 0:
		return "is a symbolic link", nil
	case to.IsDir():
		return isDirectory, nil
	case !to.Mode().IsRegular():
		return "is not a file", nil
	case to.Mode()&0o111 == 0: // who removed the permission of some is left in peace
		return "is not executable", nil
	case to.Size() != from.Size():
		return "differs from " + source.Name(), nil
	}
	pair := comparison{stampOf(from), stampOf(to)}
	if i.verified[name] == pair {
		return "", nil
	}
	equal, err := sameContent(source, path)
	switch {
	case err != nil:
		return "cannot be read: " + withoutPaths(err).Error(), nil
	case !equal:
		return "differs from " + source.Name(), nil
	}
	if pair.source.settled() && pair.target.settled() {
		if i.verified == nil {
			i.verified = map[string]comparison{}
		}
		i.verified[name] = pair
	}
	return "", nil
}

// sameContent compares an open file with the one at a path.
func sameContent(a io.Reader, path string) (bool, error) {
	b, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	blockA, blockB := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		lengthA, errA := io.ReadFull(a, blockA)
		lengthB, errB := io.ReadFull(b, blockB)
		if !bytes.Equal(blockA[:lengthA], blockB[:lengthB]) {
			return false, nil
		}
		endA, endB := isEnd(errA), isEnd(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA || endB:
			return endA && endB, nil
		}
	}
}

func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (i *Installer) removeBinaries(w *writer) error {
	var errs []error
	for _, name := range binaries() {
		path := filepath.Join(i.BinDir, name)
		switch ours, err := i.isOurBinary(name); {
		case err != nil:
			errs = append(errs, err)
		case ours:
			errs = append(errs, w.remove(path))
		}
	}
	return errors.Join(errs...)
}

// isOurBinary recognises a binary of any version without executing it: what
// may be anybody's is not run as root to be asked who it is.
func (i *Installer) isOurBinary(name string) (bool, error) {
	path := filepath.Join(i.BinDir, name)
	to, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking at %s: %w", path, withoutPaths(err))
	case !to.Mode().IsRegular():
		return false, nil
	}
	source, err := os.Open(filepath.Join(i.SourceDir, name))
	if err == nil {
		defer source.Close()
		if from, err := source.Stat(); err == nil && os.SameFile(from, to) {
			return false, nil
		}
	}
	if info, err := buildinfo.ReadFile(path); err == nil && info.Path == module+name {
		return true, nil
	}
	if source == nil {
		return false, nil
	}
	return sameContent(source, path)
}
