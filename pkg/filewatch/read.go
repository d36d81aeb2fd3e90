package filewatch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Read reads a regular file of at most so many bytes. Opening does not block, even if
// somebody has put a pipe there. The error does not name the path.
func Read(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, reasonOf(err)
	}
	defer file.Close()
	stat, err := file.Stat()
	switch {
	case err != nil:
		return nil, reasonOf(err)
	case !stat.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	var text bytes.Buffer
	text.Grow(int(min(stat.Size(), most)) + bytes.MinRead)
	if _, err := text.ReadFrom(io.LimitReader(file, most+1)); err != nil {
		return nil, reasonOf(err)
	}
	if int64(text.Len()) > most {
		return nil, fmt.Errorf("it is larger than %d MiB, which is taken for a mistake", most>>20)
	}
	return text.Bytes(), nil
}

// reasonOf takes the path out of an error: whoever wraps it names it.
func reasonOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
