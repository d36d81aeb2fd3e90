package kubectl

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// archive is a .tar.gz that is being written. Its methods may be called from several
// goroutines.
type archive struct {
	directory string // in which all files are
	now       time.Time
	clean     func([]byte) []byte

	mu      sync.Mutex
	zip     *gzip.Writer
	tar     *tar.Writer
	failure error    // of writing
	missing []string // what could not be collected, and why
}

func newArchive(w io.Writer, directory string, now time.Time, clean func([]byte) []byte) *archive {
	zip := gzip.NewWriter(w)
	return &archive{directory: directory, now: now, clean: clean, zip: zip, tar: tar.NewWriter(zip)}
}

// add writes a file, without what is secret.
func (a *archive) add(name string, content []byte) {
	content = a.clean(content)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return
	}
	a.failure = a.tar.WriteHeader(&tar.Header{
		Name: path.Join(a.directory, name), Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content)), ModTime: a.now,
	})
	if a.failure == nil {
		_, a.failure = a.tar.Write(content)
	}
}

// miss notes what could not be collected.
func (a *archive) miss(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.missing = append(a.missing, fmt.Sprintf("%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " ")))
}

// notCollected is the file that says what is not there.
const notCollected = "not-collected.txt"

// close writes what could not be collected, and ends the archive.
func (a *archive) close() error {
	slices.Sort(a.missing)
	text := strings.Join(a.missing, "")
	if text == "" {
		text = "Everything could be collected.\n"
	}
	a.add(notCollected, []byte(text))
	return errors.Join(a.failure, a.tar.Close(), a.zip.Close())
}
