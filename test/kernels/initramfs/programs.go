package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// Programs is where programs and their libraries are taken from: a whole root,
// the machine's "/" or a directory of unpacked packages.
type Programs string

// search is where programs are, and where the linker looks for libraries
// besides the directories that are named after the architecture.
var (
	searchPrograms  = []string{"usr/sbin", "usr/bin", "sbin", "bin"}
	searchLibraries = []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib64", "lib64", "usr/lib", "lib"}
)

// ErrMissing says that there is no program of a name.
var ErrMissing = errors.New("no such program")

// Add copies a program of this name into the root, with the libraries that it
// is linked to. Returns [ErrMissing] if there is none.
func (p Programs) Add(r *Root, name string) error {
	for _, directory := range searchPrograms {
		found := filepath.Join(string(p), directory, name)
		if info, err := os.Stat(found); err != nil || !info.Mode().IsRegular() {
			continue
		}
		to := path.Join(directory, name)
		if err := r.File(to, found); err != nil {
			return err
		}
		return p.libraries(r, found)
	}
	return fmt.Errorf("%s: %w", name, ErrMissing)
}

// AddPlugins copies the shared objects of a directory, which is named below one
// of the libraries', such as xtables.
func (p Programs) AddPlugins(r *Root, directory string) error {
	for _, place := range searchLibraries {
		found, err := filepath.Glob(filepath.Join(string(p), place, directory, "*.so"))
		if err != nil {
			return err
		}
		for _, file := range found {
			below, err := filepath.Rel(string(p), file)
			if err != nil {
				return err
			}
			if err := r.File(below, file); err != nil {
				return err
			}
			if err := p.libraries(r, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// libraries copies what a file is linked to. What is no executable has none.
func (p Programs) libraries(r *Root, file string) error {
	binary, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	defer binary.Close()
	for _, segment := range binary.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		if err != nil {
			return err
		}
		linker := path.Clean(string(name[:len(name)-1]))
		if err := p.library(r, linker, linker); err != nil {
			return err
		}
	}
	needed, err := binary.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("reading what %s is linked to: %w", file, err)
	}
next:
	for _, library := range needed {
		for _, place := range searchLibraries {
			found, err := filepath.Glob(filepath.Join(string(p), place, library))
			if err != nil || len(found) == 0 {
				continue
			}
			below, err := filepath.Rel(string(p), found[0])
			if err != nil {
				return err
			}
			if err := p.library(r, below, library); err != nil {
				return err
			}
			continue next
		}
		return fmt.Errorf("looking for %s, which %s is linked to: there is none in %s", library, file, p)
	}
	return nil
}

func (p Programs) library(r *Root, at, name string) error {
	if r.Has(at) {
		return nil
	}
	source := filepath.Join(string(p), at)
	if _, err := os.Stat(source); err != nil {
		// Packages have moved below /usr, and programs name their linker by its old
		// place; unpacked packages have no link from there.
		source = filepath.Join(string(p), "usr", at)
	}
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("looking for %s: %w", name, err)
	}
	if err := r.File(at, source); err != nil {
		return err
	}
	return p.libraries(r, source)
}
