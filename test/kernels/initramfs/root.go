package initramfs

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Root is a root file system in the making. /bin, /sbin, /lib and /lib64 lead
// to their namesakes below /usr, wherever a file was found.
type Root struct {
	entries map[string]entry // by path without the leading slash
}

// New makes an almost empty root.
func New() *Root {
	r := &Root{entries: map[string]entry{}}
	for _, name := range merged {
		r.Directory("usr/" + name)
		r.entries[name] = entry{mode: typeLink | 0o777, text: []byte("usr/" + name)}
	}
	for _, name := range []string{"proc", "sys", "dev", "run", "root", "etc", "var/lib", "var/log"} {
		r.Directory(name)
	}
	r.entries["tmp"] = entry{mode: typeDirectory | 0o1777}
	r.entries["var/run"] = entry{mode: typeLink | 0o777, text: []byte("/run")}
	return r
}

// merged are the directories that have moved below /usr.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// clean is a path in the root.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, moved := range merged {
		if strings.HasPrefix(name, moved+"/") {
			return "usr/" + name
		}
	}
	return name
}

// Directory makes a directory and those above it.
func (r *Root) Directory(name string) {
	for name = clean(name); name != "." && name != ""; name = path.Dir(name) {
		if _, there := r.entries[name]; there {
			return
		}
		r.entries[name] = entry{mode: typeDirectory | 0o755}
	}
}

func (r *Root) put(name string, e entry) {
	name = clean(name)
	r.Directory(path.Dir(name))
	r.entries[name] = e
}

// Has says whether there is a file of this path.
func (r *Root) Has(name string) bool {
	_, there := r.entries[clean(name)]
	return there
}

// Text makes a file with this content.
func (r *Root) Text(name, content string) {
	r.put(name, entry{mode: typeFile | 0o644, text: []byte(content)})
}

// Link makes a symbolic link.
func (r *Root) Link(name, target string) {
	r.put(name, entry{mode: typeLink | 0o777, text: []byte(target)})
}

// File makes a file with the content of another one, which is read when the
// archive is written.
func (r *Root) File(name, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("copying into the root: %w", err)
	}
	r.put(name, entry{mode: typeFile | uint32(info.Mode().Perm()), source: source})
	return nil
}

// Tree copies a directory with what is below it; links below it are kept.
func (r *Root) Tree(name, source string) error {
	return filepath.WalkDir(source, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copying into the root: %w", err)
		}
		below, err := filepath.Rel(source, at)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(below))
		switch {
		case d.IsDir():
			r.Directory(to)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			r.Link(to, target)
		case d.Type().IsRegular():
			return r.File(to, at)
		}
		return nil
	})
}

// Write writes the root as a file that a kernel takes for its initramfs.
func (r *Root) Write(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	// A directory's name sorts before the names below it.
	err = writeArchive(file, slices.Sorted(maps.Keys(r.entries)), r.entries)
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
