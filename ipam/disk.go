package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names below the record directory.
const (
	lockName    = "lock"
	cursorName  = "last_reserved_ip."
	indexDir    = ".flatnet"
	stateName   = indexDir + "/state"
	bootName    = indexDir + "/boot"
	ownersDir   = indexDir + "/owners"
	releasedDir = indexDir + "/released"
	setsDir     = indexDir + "/sets"
	stagedName  = indexDir + "/staged" // a record or a link before it gets its name
	rangesName  = "ranges"
)

// errTaken means that a record exists already.
var errTaken = errors.New("the address has a record")

// errGarbage is what a diskError is when the index is not the tree that it
// should be. The remedy is to remove the index and build it anew.
var errGarbage = errors.New("the index is damaged")

// diskError is a failed system call. Its text never is that of ENOENT, since
// a container runtime takes a DEL with such an error for one that succeeded.
type diskError struct {
	op, name string
	err      error
}

func (e *diskError) Error() string {
	text := e.err.Error()
	if errors.Is(e.err, fs.ErrNotExist) {
		text = "the file is missing"
	}
	return e.op + " " + e.name + ": " + text
}

func (e *diskError) Unwrap() error { return e.err }

func (e *diskError) Is(target error) bool {
	if target != errGarbage || !strings.HasPrefix(e.name, indexDir) {
		return false
	}
	switch e.err {
	case unix.ENOTDIR, unix.EISDIR, unix.ENOENT, unix.EEXIST, unix.EINVAL, unix.ELOOP, unix.ENOTEMPTY, unix.EXDEV, unix.ENXIO, unix.ESPIPE, unix.EPERM:
		return true
	}
	return false
}

// disk makes system calls relative to a record directory.
type disk struct {
	dir  int
	step func(operation string) error
	// noTmpfile is for tests of file systems that lack O_TMPFILE.
	noTmpfile bool
}

// before gives the hook of Options.Step its chance.
func (d *disk) before(op, name string) error {
	if d.step == nil {
		return nil
	}
	if err := d.step(op + " " + name); err != nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	return nil
}

func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &diskError{op, name, err}
}

// restarted repeats a call that a signal interrupted.
func restarted[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func (d *disk) open(name string, flags int) (int, error) {
	return restarted(func() (int, error) {
		return unix.Openat(d.dir, name, flags|unix.O_CLOEXEC, 0o600)
	})
}

// read returns at most limit bytes of a regular file.
func (d *disk) read(name string, limit int) ([]byte, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, fail("opening", name, err)
	}
	defer unix.Close(fd)
	b := make([]byte, limit)
	n, err := restarted(func() (int, error) { return unix.Read(fd, b) })
	if err != nil {
		return nil, fail("reading", name, err)
	}
	return b[:n], nil
}

// exists says whether there is anything of that name.
func (d *disk) exists(name string) (bool, error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(d.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, fail("looking at", name, err)
	}
}

func (d *disk) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, fail("looking at", name, err)
}

// date reads from an entry's link what is not in its text.
func (d *disk) date(e *entry) error {
	st, err := d.stat(entryName(e.owner))
	e.since, e.inode = time.Unix(st.Mtim.Unix()), st.Ino
	return err
}

// again returns the same directory with a descriptor of its own.
func (d *disk) again() (*disk, error) {
	fd, err := d.open(".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fail("opening", ".", err)
	}
	return &disk{dir: fd, step: d.step, noTmpfile: d.noTmpfile}, nil
}

// readlink returns the target text of a link, and "" if there is none of that
// name.
func (d *disk) readlink(name string) (string, error) {
	b := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(d.dir, name, b)
		switch {
		case err == unix.ENOENT:
			return "", nil
		case err != nil:
			return "", fail("reading", name, err)
		case n < len(b):
			return string(b[:n]), nil
		}
		b = make([]byte, maxLink+1)
	}
}

// symlink makes a link; it fails with EEXIST if the name is taken.
//
// Equivalent to: `ln -s text name`
func (d *disk) symlink(text, name string) error {
	if err := d.before("link", name); err != nil {
		return err
	}
	return fail("writing", name, unix.Symlinkat(text, d.dir, name))
}

// setLink makes a link or replaces the one of that name.
//
// Equivalent to: `ln -sfn text name`
func (d *disk) setLink(text, name string) error {
	if err := d.remove(stagedName); err != nil {
		return err
	}
	if err := d.symlink(text, stagedName); err != nil {
		return err
	}
	if err := d.before("rename", name); err != nil {
		return err
	}
	return fail("writing", name, unix.Renameat(d.dir, stagedName, d.dir, name))
}

// remove takes a name away, or does nothing if there is none.
//
// Equivalent to: `rm -f name`
func (d *disk) remove(name string) error {
	if err := d.before("unlink", name); err != nil {
		return err
	}
	if err := unix.Unlinkat(d.dir, name, 0); err != nil && err != unix.ENOENT {
		return fail("removing", name, err)
	}
	return nil
}

// mkdir makes a directory, or does nothing if there is one.
func (d *disk) mkdir(name string) error {
	st, err := d.stat(name)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if err := d.before("mkdir", name); err != nil {
		return err
	}
	return fail("making directory", name, unix.Mkdirat(d.dir, name, 0o700))
}

// write puts content at the start of a file and cuts off what is behind it if
// cut is set. The file is made if need be.
func (d *disk) write(name string, content []byte) error {
	if err := d.before("write", name); err != nil {
		return err
	}
	fd, err := d.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW)
	if err != nil {
		return fail("opening", name, err)
	}
	defer unix.Close(fd)
	// Not O_TRUNC: whoever reads meanwhile, or after a kill, sees a number
	// too many rather than nothing.
	if _, err := restarted(func() (int, error) { return unix.Pwrite(fd, content, 0) }); err != nil {
		return fail("writing", name, err)
	}
	return fail("cutting", name, unix.Ftruncate(fd, int64(len(content))))
}

// record makes a record with its content, as a whole. It fails with errTaken
// if there is something of that name.
func (d *disk) record(name, content string) error {
	if !d.noTmpfile {
		done, err := d.recordUnnamed(name, content)
		if done {
			return err
		}
	}
	// The file system has no files without a name, or no way to give them one.
	if err := d.remove(stagedName); err != nil {
		return err
	}
	if err := d.write(stagedName, []byte(content)); err != nil {
		return err
	}
	if err := d.before("record", name); err != nil {
		return err
	}
	if err := unix.Linkat(d.dir, stagedName, d.dir, name, 0); err == unix.EEXIST {
		return errTaken
	} else if err != nil {
		return fail("linking", name, err)
	}
	return d.remove(stagedName)
}

// recordUnnamed writes a file that has no name until it is complete, so that
// nothing is left behind if this process is killed.
func (d *disk) recordUnnamed(name, content string) (done bool, err error) {
	fd, err := d.open(indexDir, unix.O_WRONLY|unix.O_TMPFILE)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	n, err := restarted(func() (int, error) { return unix.Write(fd, []byte(content)) })
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	if err != nil {
		return true, fail("writing", name, err)
	}
	if err := d.before("record", name); err != nil {
		return true, err
	}
	switch err := unix.Linkat(fd, "", d.dir, name, unix.AT_EMPTY_PATH); err {
	case nil:
		return true, nil
	case unix.EEXIST:
		return true, errTaken
	default:
		return false, nil
	}
}

// list returns what a directory holds, in no order.
func (d *disk) list(name string) ([]os.DirEntry, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fail("opening", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fail("listing", name, errno(err))
	}
	return entries, nil
}

// errno takes the system's error out of what package os makes of it.
func errno(err error) error {
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return n
	}
	return err
}

// discard removes whatever is there of that name, below a directory of the
// index.
func (d *disk) discard(name string) error {
	err := d.remove(name)
	if e, ok := err.(*diskError); !ok || e.err != unix.EISDIR && e.err != unix.EPERM {
		return err
	}
	entries, err := d.list(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.discard(name + "/" + e.Name()); err != nil {
			return err
		}
	}
	if err := d.before("rmdir", name); err != nil {
		return err
	}
	return fail("removing", name, unix.Unlinkat(d.dir, name, unix.AT_REMOVEDIR))
}
