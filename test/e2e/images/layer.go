// Package images writes container images without a container engine: layers
// out of files of this machine, and archives that `ctr images import` reads.
package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Layer is a tar archive of files.
type Layer struct {
	content bytes.Buffer
	archive *tar.Writer
	have    map[string]bool // what was added, by path
	err     error
}

// NewLayer makes an empty layer. Its methods do nothing after the first that
// fails, and Bytes returns that error.
func NewLayer() *Layer {
	l := &Layer{have: map[string]bool{}}
	l.archive = tar.NewWriter(&l.content)
	return l
}

// Directory adds a directory and those above it.
func (l *Layer) Directory(name string, mode int64) *Layer {
	name = strings.Trim(path.Clean(name), "/")
	if name == "." || name == "" || l.have[name] {
		return l
	}
	if parent := path.Dir(name); parent != "." {
		l.Directory(parent, 0o755)
	}
	return l.entry(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

// Text adds a file.
func (l *Layer) Text(name, content string, mode int64) *Layer {
	name = strings.Trim(name, "/")
	l.Directory(path.Dir(name), 0o755)
	return l.entry(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, strings.NewReader(content))
}

// Link adds a symbolic link.
func (l *Layer) Link(name, target string) *Layer {
	name = strings.Trim(name, "/")
	l.Directory(path.Dir(name), 0o755)
	return l.entry(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// File adds a file of this machine, what a link to it points to, under a name.
func (l *Layer) File(name, source string) *Layer {
	if l.err != nil {
		return l
	}
	name = strings.Trim(name, "/")
	if l.have[name] {
		return l
	}
	file, err := os.Open(source)
	if err != nil {
		return l.fail(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return l.fail(err)
	}
	l.Directory(path.Dir(name), 0o755)
	return l.entry(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size()}, file)
}

// Program adds a program of this machine, with the libraries that it is linked
// with and the loader, in the places where they are here.
func (l *Layer) Program(name, source string) *Layer {
	if l.err != nil {
		return l
	}
	if source == "" {
		return l.fail(fmt.Errorf("program %s: %w", name, fs.ErrNotExist))
	}
	l.File(name, source)
	return l.libraries(source)
}

// Libraries adds shared objects that a program loads when it runs, all that
// match a pattern, with what they are linked with.
func (l *Layer) Libraries(pattern string) *Layer {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		return l.fail(fmt.Errorf("libraries %s: %w", pattern, errors.Join(err, fs.ErrNotExist)))
	}
	for _, source := range paths {
		l.Program(source, source)
	}
	return l
}

// libraries adds what an ELF file is linked with, and that in turn.
func (l *Layer) libraries(source string) *Layer {
	file, err := elf.Open(source)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) {
			return l // a script
		}
		return l.fail(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			raw, err := io.ReadAll(segment.Open())
			if err != nil {
				return l.fail(err)
			}
			loader := strings.TrimRight(string(raw), "\x00")
			l.File(loader, loader)
		}
	}
	names, err := file.ImportedLibraries()
	if err != nil {
		return l.fail(fmt.Errorf("reading libraries of %s: %w", source, err))
	}
	for _, name := range names {
		found := library(name, filepath.Dir(source))
		if found == "" {
			return l.fail(fmt.Errorf("library %s of %s: %w", name, source, fs.ErrNotExist))
		}
		if !l.have[strings.Trim(found, "/")] {
			l.File(found, found).libraries(found)
		}
	}
	return l
}

// library finds a shared object as the loader does, near enough.
func library(name, beside string) string {
	patterns := []string{"/lib/*-linux-gnu", "/usr/lib/*-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", beside}
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(filepath.Join(pattern, name)); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func (l *Layer) entry(header *tar.Header, content io.Reader) *Layer {
	name := strings.Trim(header.Name, "/")
	if l.err != nil || l.have[name] {
		return l
	}
	l.have[name] = true
	if err := l.archive.WriteHeader(header); err != nil {
		return l.fail(err)
	}
	if content != nil {
		if _, err := io.Copy(l.archive, content); err != nil {
			return l.fail(err)
		}
	}
	return l
}

func (l *Layer) fail(err error) *Layer {
	if l.err == nil {
		l.err = err
	}
	return l
}

// bytes ends the layer and returns it with its digest.
func (l *Layer) bytes() ([]byte, string, error) {
	if l.err != nil {
		return nil, "", fmt.Errorf("writing layer of an image: %w", l.err)
	}
	if err := l.archive.Close(); err != nil {
		return nil, "", fmt.Errorf("writing layer of an image: %w", err)
	}
	return l.content.Bytes(), fmt.Sprintf("%x", sha256.Sum256(l.content.Bytes())), nil
}
