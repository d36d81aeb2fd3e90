package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxConflist bounds what is read of a configuration, in bytes.
const maxConflist = 4 << 20

// installed is what stands in the place of the configuration.
type installed struct {
	text   []byte // nil where nothing can be read there
	wrong  string // why it has to be replaced, "" where it has not
	blocks string // why it must not be, "" where it may
}

func (i *Installer) syncConflist(ctx context.Context, w *writer, n Network) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing %s: %w", i.conflist(), err)
	}
	wanted, err := Conflist(n)
	if err != nil {
		return err
	}
	if err := w.makeDirectory(i.ConfDir); err != nil {
		return err
	}
	if err := w.sweep(i.ConfDir, leftoverAge); err != nil {
		return err
	}
	found := i.inspectConflist(n.Name, wanted)
	switch {
	case found.blocks != "":
		return fmt.Errorf("writing %s: it %s: %s", i.conflist(), found.blocks, adviceMove)
	case found.wrong == "":
		return nil
	}
	if err := w.replace(i.conflist(), 0o644, bytes.NewReader(wanted)); err != nil {
		return err
	}
	w.changed("wrote", i.conflist())
	return nil
}

// adviceMove is for what stands in the way and may be somebody's.
const adviceMove = "move it away, and flatnetd writes its own"

// inspectConflist compares the configuration on the disk with the wanted one.
func (i *Installer) inspectConflist(network string, wanted []byte) installed {
	path := i.conflist()
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return installed{wrong: "is missing"}
	case err != nil:
		return installed{wrong: "cannot be read: " + withoutPaths(err).Error()}
	case info.IsDir():
		return installed{blocks: isDirectory}
	}
	// Through a link: what it leads to may be another network's.
	text, err := readRegular(path)
	if err != nil {
		return installed{wrong: "cannot be read: " + withoutPaths(err).Error()}
	}
	found := installed{text: text, blocks: foreign(text, network)}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		found.wrong = "is a symbolic link"
	case !bytes.Equal(text, wanted):
		found.wrong = "differs from what it should be"
	}
	return found
}

// readRegular reads a file, and not a pipe or a device.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxConflist))
}

// contents are what tells whose a configuration is.
func contents(text []byte) (network string, plugins []string, err error) {
	var l struct {
		Name    string `json:"name"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return "", nil, err
	}
	for _, p := range l.Plugins {
		plugins = append(plugins, p.Type)
	}
	return l.Name, plugins, nil
}

// foreign says why a configuration must not be replaced by that of a network,
// "" where it may. What is no JSON serves nobody. With another name, the pods
// that are attached now could not be deleted any more: runtimes, reservations
// and attachments know them by it.
func foreign(text []byte, network string) string {
	name, plugins, err := contents(text)
	switch {
	case err != nil:
		return ""
	case !slices.Contains(plugins, pluginType):
		return fmt.Sprintf("is not flatnet's (network %q, plugins [%s])", name, strings.Join(plugins, " "))
	case name != network:
		return fmt.Sprintf("is of network %q, not of %q, and the pods attached to it need it to be deleted", name, network)
	}
	return ""
}

// removeConflist removes the configuration, if it is flatnet's.
func (i *Installer) removeConflist(w *writer) error {
	path := i.conflist()
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at %s: %w", path, withoutPaths(err))
	case !info.Mode().IsRegular():
		return nil // not written by this package
	}
	text, err := readRegular(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, withoutPaths(err))
	}
	if _, plugins, err := contents(text); err != nil || !slices.Contains(plugins, pluginType) {
		return nil
	}
	return w.remove(path)
}

// isConfiguration says whether a runtime reads a file of this name (libcni's
// ConfFiles, with the extensions that containerd and CRI-O give it).
func isConfiguration(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// shadows are the configurations that a runtime prefers, since they sort first.
func (i *Installer) shadows() []string {
	entries, _ := os.ReadDir(i.ConfDir) // what cannot be listed is told by Sync
	var before []string
	for _, entry := range entries {
		if !entry.IsDir() && isConfiguration(entry.Name()) && entry.Name() < conflistName {
			before = append(before, filepath.Join(i.ConfDir, entry.Name()))
		}
	}
	return before
}
