package debian

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Kernel is a kernel that can be booted.
type Kernel struct {
	Name    string // what it was asked for by: "6.1"
	Release string // as uname -r says: "6.1.0-50-cloud-amd64"
	Image   string // path of the kernel's image
	Modules string // directory of its modules, with modules.dep; "" if it has none
	Origin  string // a sentence's part: "Debian's bookworm"
	// Unverified says why the package's signature was not verified; "" if it was.
	Unverified string
}

// suites are the releases of Debian that kernels are known by.
var suites = map[string]string{
	"5.10":   "bullseye",
	"6.1":    "bookworm",
	"6.12":   "trixie",
	"newest": "sid",
}

// Names are the kernels that flatnet is tried on, oldest first.
func Names() []string { return []string{"5.10", "6.1", "6.12", "newest"} }

// GetKernel returns a kernel: one of [Names], the name of a suite of Debian's
// for its current one, or IMAGE[:MODULES] for a kernel image of one's own. What
// was downloaded before is taken again, unless update asks for what there is today.
func GetKernel(ctx context.Context, cache, name, architecture string, update bool, log io.Writer) (*Kernel, error) {
	if strings.Contains(name, "/") {
		return ownKernel(name)
	}
	suite, known := suites[name]
	if !known {
		suite = name
	}
	directory := filepath.Join(cache, "kernels", name+"-"+architecture)
	if err := os.MkdirAll(filepath.Dir(directory), 0o755); err != nil {
		return nil, fmt.Errorf("making a place for kernels: %w", err)
	}
	unlock, err := lock(directory + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(directory); err != nil || update {
		fmt.Fprintf(log, "getting Debian's kernel of %s for %s\n", suite, architecture)
		if err := download(ctx, cache, suite, architecture, directory); err != nil {
			return nil, fmt.Errorf("getting kernel %s: %w", name, err)
		}
	}
	return unpacked(directory, name, suite)
}

// download makes directory appear with a kernel's packages unpacked in it.
func download(ctx context.Context, cache, suite, architecture, directory string) error {
	archive, err := Open(ctx, cache, suite, architecture)
	if err != nil {
		return err
	}
	// The image for virtual machines: small, and with all of the network in it.
	// From 7 on it is split in several packages.
	names, err := archive.Depends(ctx, "linux-image-cloud-"+architecture, func(name string) bool {
		for _, prefix := range []string{"linux-image-", "linux-binary-", "linux-modules-", "linux-base-"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(directory), "unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := archive.Unpack(ctx, fresh, names...); err != nil {
		return err
	}
	kernel, err := unpacked(fresh, "", suite)
	if err != nil {
		return err
	}
	if err := trim(kernel.Modules); err != nil {
		return err
	}
	if err := expand(ctx, kernel.Modules); err != nil {
		return err
	}
	if _, err := output(ctx, "", "depmod", "-b", baseOf(kernel.Modules), kernel.Release); err != nil {
		return fmt.Errorf("listing what modules depend on: %w", err)
	}
	if err := os.WriteFile(filepath.Join(fresh, "unverified"), []byte(archive.Unverified), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	return os.Rename(fresh, directory)
}

// unpacked finds the kernel in unpacked packages.
func unpacked(directory, name, suite string) (*Kernel, error) {
	kernel := &Kernel{Name: name, Origin: "Debian's " + suite}
	for _, pattern := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		if found, _ := filepath.Glob(filepath.Join(directory, pattern)); len(found) > 0 {
			kernel.Modules = found[0]
		}
	}
	if kernel.Modules == "" {
		return nil, fmt.Errorf("finding a kernel's modules in %s: none", directory)
	}
	kernel.Release = filepath.Base(kernel.Modules)
	for _, pattern := range []string{"boot/vmlinu?-*", "usr/lib/modules/*/vmlinu?", "lib/modules/*/vmlinu?"} {
		if found, _ := filepath.Glob(filepath.Join(directory, pattern)); len(found) > 0 {
			kernel.Image = found[0]
		}
	}
	if kernel.Image == "" {
		return nil, fmt.Errorf("finding a kernel's image in %s: none", directory)
	}
	reason, err := os.ReadFile(filepath.Join(directory, "unverified"))
	if err == nil {
		kernel.Unverified = string(reason)
	}
	return kernel, nil
}

// baseOf is the root that a directory …/lib/modules/RELEASE is below, as depmod wants it.
func baseOf(modules string) string {
	return filepath.Dir(filepath.Dir(filepath.Dir(modules)))
}

// trim removes what no test needs, before it takes room for ever.
func trim(modules string) error {
	for _, part := range []string{
		"drivers/net/ethernet", "drivers/net/wireless", "drivers/gpu", "drivers/infiniband",
		"drivers/media", "drivers/usb", "sound",
	} {
		if err := os.RemoveAll(filepath.Join(modules, "kernel", part)); err != nil {
			return err
		}
	}
	return nil
}

// expand uncompresses modules, because an emulated machine takes long for that.
func expand(ctx context.Context, modules string) error {
	var compressed []string
	err := filepath.WalkDir(modules, func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			compressed = append(compressed, path)
		}
		return err
	})
	if err != nil || len(compressed) == 0 {
		return err
	}
	if _, err := output(ctx, "", "xz", append([]string{"-d"}, compressed...)...); err != nil {
		return fmt.Errorf("uncompressing modules: %w", err)
	}
	return nil
}

// ownKernel is one that the caller has built: IMAGE or IMAGE:MODULES.
func ownKernel(name string) (*Kernel, error) {
	image, modules, _ := strings.Cut(name, ":")
	kernel := &Kernel{Name: filepath.Base(image), Image: image, Modules: modules, Origin: image}
	for _, path := range []string{image, modules} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("looking for a kernel of one's own: %w", err)
		}
	}
	if modules != "" {
		kernel.Release = filepath.Base(strings.TrimRight(modules, "/"))
	}
	return kernel, nil
}
