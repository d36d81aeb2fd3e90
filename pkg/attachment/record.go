package attachment

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

// Record is what DEL, CHECK and GC need to know of an attachment even where the
// configuration has changed since, the network namespace is gone, or there is
// no prevResult.
type Record struct {
	Key
	Sandbox Sandbox   `json:"sandbox"`
	Wire    wire.Wire `json:"wire"`
	// IPAM is the type of the plugin that the addresses came from; "" means
	// the built-in allocator, which keeps them in DataDir.
	IPAM       string         `json:"ipam,omitempty"`
	DataDir    string         `json:"dataDir,omitempty"`
	Masquerade bool           `json:"ipMasq,omitempty"`
	Exempt     []netip.Prefix `json:"exempt,omitempty"` // from masquerading
	Pod        string         `json:"pod,omitempty"`    // namespace/name, for people
	UID        string         `json:"uid,omitempty"`    // of the pod
	// Ports of the node that lead to the pod.
	Ports ports.Wanted `json:"ports,omitzero"`
	// Closed are the directions in which ADD closed the pod, for the agent to open
	// it: "ingress", "egress".
	Closed []string  `json:"closed,omitempty"`
	Since  time.Time `json:"since"`
}

// Sandbox identifies the pod's network namespace. Device and Inode tell it from
// another one that is found at the same path later.
type Sandbox struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Directory keeps records, a file each. It belongs on a tmpfs: a record
// describes interfaces, which a reboot removes as well.
type Directory struct {
	path string
	// Step is called before every change, with its name; an error takes the
	// place of the change. Tests make changes fail with it.
	Step func(operation string) error
}

// OpenDirectory returns the records below a state directory. Nothing is made
// before the first record.
func OpenDirectory(stateDirectory string) *Directory {
	return &Directory{path: filepath.Join(stateDirectory, "attachments")}
}

// file is the path of a key's record. It is made of a digest, so no part of a
// key can lead out of the directory or be too long for a file name.
func (d *Directory) file(k Key) string {
	sum := k.digest("record")
	return filepath.Join(d.path, hex.EncodeToString(sum[:16]))
}

// Path is where the records are, each in a file.
func (d *Directory) Path() string { return d.path }

// IsTemporary reports whether a file of the directory is not a record yet.
func IsTemporary(name string) bool { return strings.HasSuffix(name, temporaryMark) }

// temporaryMark ends the names of files that are not records yet.
const temporaryMark = ".new"

// Put writes a record, atomically: other processes see the old one, the new
// one, or none. It is not synced to disk, because it must not outlive a reboot.
func (d *Directory) Put(r Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding record of %s: %w", r.Key, err)
	}
	if err := d.step("write record"); err != nil {
		return err
	}
	path := d.file(r.Key)
	// The same key is never attached twice at a time, so the name is unique.
	temporary := path + temporaryMark
	err = os.WriteFile(temporary, raw, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			return fmt.Errorf("making %s: %w", d.path, err)
		}
		err = os.WriteFile(temporary, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing record of %s: %w", r.Key, err)
	}
	if err := d.step("rename record"); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("writing record of %s: %w", r.Key, err)
	}
	return nil
}

// Get reads a record; ok is false where there is none. A record that cannot be
// read is as good as none: everything that it says can be found otherwise.
func (d *Directory) Get(k Key) (r Record, ok bool) {
	raw, err := os.ReadFile(d.file(k))
	if err != nil {
		return Record{}, false
	}
	if err := json.Unmarshal(raw, &r); err != nil || r.Key != k || r.Wire.Pod.MAC == (kernel.MAC{}) || r.Wire.Host.MAC == (kernel.MAC{}) {
		return Record{}, false
	}
	return r, true
}

// Delete removes a record; it is no error where there is none.
func (d *Directory) Delete(k Key) error {
	if err := d.step("remove record"); err != nil {
		return err
	}
	path := d.file(k)
	for _, name := range []string{path, path + temporaryMark} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing record of %s: %w", k, err)
		}
	}
	return nil
}

// Others reports whether there is a record besides that of the key. It takes
// the same time however many there are.
func (d *Directory) Others(k Key) bool {
	dir, err := os.Open(d.path)
	if err != nil {
		return false
	}
	defer dir.Close()
	own := filepath.Base(d.file(k))
	for {
		names, err := dir.Readdirnames(8)
		for _, name := range names {
			if name != own && name != own+temporaryMark {
				return true
			}
		}
		if err != nil {
			return false
		}
	}
}

// List returns the records of one network, or of all where network is "",
// those of interrupted writes included. What cannot be read is left out.
func (d *Directory) List(network string) ([]Record, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d.path, err)
	}
	var records []Record
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(d.path, e.Name()))
		if err != nil {
			continue // removed since
		}
		var r Record
		if json.Unmarshal(raw, &r) == nil && (network == "" || r.Network == network) {
			records = append(records, r)
		}
	}
	return records, nil
}

// SweepTorn removes what an interrupted write left and nobody can read, once it
// is older than any ADD can take.
func (d *Directory) SweepTorn(age time.Duration) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil // nothing there
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(d.path, e.Name())
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			continue
		}
		raw, err := os.ReadFile(path)
		if err == nil && !json.Valid(raw) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func (d *Directory) step(operation string) error {
	if d.Step == nil {
		return nil
	}
	return d.Step(operation)
}
