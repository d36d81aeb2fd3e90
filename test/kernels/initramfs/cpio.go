// Package initramfs makes the small root file system that a test's kernel
// starts with, out of programs that are there already.
package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// entry is a file of the archive.
type entry struct {
	mode   uint32 // of stat: type and permissions
	source string // a regular file's content is this file's …
	text   []byte // … or this, which is also where a link leads
}

const (
	typeDirectory = 0o040000
	typeFile      = 0o100000
	typeLink      = 0o120000
)

// writeArchive writes entries as an archive that the kernel unpacks ("newc": see
// Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
func writeArchive(to io.Writer, names []string, entries map[string]entry) error {
	w := &archiver{to: bufio.NewWriterSize(to, 1<<20)}
	for i, name := range names {
		if err := w.add(i+1, name, entries[name]); err != nil {
			return fmt.Errorf("archiving %s: %w", name, err)
		}
	}
	w.header(0, 0, 0, "TRAILER!!!")
	return w.to.Flush() // which returns the first error
}

type archiver struct {
	to      *bufio.Writer
	written int64
}

func (w *archiver) add(number int, name string, e entry) error {
	if e.source == "" {
		w.header(number, e.mode, int64(len(e.text)), name)
		w.count(w.to.Write(e.text))
		w.pad()
		return nil
	}
	file, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	w.header(number, e.mode, info.Size(), name)
	copied, err := io.Copy(w.to, io.LimitReader(file, info.Size()))
	if err == nil && copied != info.Size() {
		err = fs.ErrInvalid // it was cut while it was read
	}
	w.written += copied
	w.pad()
	return err
}

// header writes what precedes a file's content: numbers in eight hexadecimal
// digits each, owner and times of no interest.
func (w *archiver) header(number int, mode uint32, size int64, name string) {
	w.count(fmt.Fprintf(w.to, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name))
	w.pad()
}

// pad fills up to a multiple of four bytes.
func (w *archiver) pad() {
	for w.written%4 != 0 {
		w.count(w.to.Write([]byte{0}))
	}
}

func (w *archiver) count(n int, _ error) { w.written += int64(n) }
