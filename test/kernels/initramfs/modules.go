package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// wantedModules are patterns of path.Match for the modules that tests need; with
// what those depend on. All else that a kernel has only takes time to unpack.
var wantedModules = []string{
	"kernel/net/*", "kernel/net/*/*", "kernel/net/*/*/*", "kernel/net/*/*/*/*",
	"kernel/drivers/net/*", "kernel/drivers/net/vxlan/*", "kernel/drivers/net/wireguard/*", "kernel/drivers/net/bonding/*",
	"kernel/crypto/*", "kernel/arch/*/crypto/*", "kernel/lib/*", "kernel/lib/*/*",
	"kernel/drivers/virtio/*", "kernel/drivers/char/virtio_console.ko", "kernel/drivers/block/virtio_blk.ko",
	"kernel/fs/overlayfs/*", "kernel/fs/ext4/*",
}

// unwantedModules are large, and nobody asks for them by accident.
var unwantedModules = []string{
	"kernel/net/bluetooth/", "kernel/net/mac80211/", "kernel/net/wireless/", "kernel/net/nfc/", "kernel/net/ceph/",
	"kernel/net/sunrpc/", "kernel/net/tipc/", "kernel/net/rxrpc/", "kernel/net/batman-adv/", "kernel/net/smc/", "kernel/net/rds/",
}

// AddModules copies the modules of a kernel that tests need, from its directory
// (…/lib/modules/RELEASE).
func (r *Root) AddModules(directory string) error {
	needs, err := dependencies(directory)
	if err != nil {
		return err
	}
	to := path.Join("lib/modules", filepath.Base(directory))
	indexes, err := filepath.Glob(filepath.Join(directory, "modules.*"))
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if err := r.File(path.Join(to, filepath.Base(index)), index); err != nil {
			return err
		}
	}
	for module, all := range needs {
		if !wanted(module) {
			continue
		}
		for _, file := range append(all, module) {
			if err := r.File(path.Join(to, file), filepath.Join(directory, file)); err != nil {
				return err
			}
		}
	}
	return nil
}

func wanted(module string) bool {
	for _, prefix := range unwantedModules {
		if strings.HasPrefix(module, prefix) {
			return false
		}
	}
	name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(module, ".xz"), ".zst"), ".gz")
	return slices.ContainsFunc(wantedModules, func(pattern string) bool {
		matched, _ := path.Match(pattern, name)
		return matched
	})
}

// dependencies reads modules.dep: each module with all that must be loaded before it.
func dependencies(directory string) (map[string][]string, error) {
	file, err := os.Open(filepath.Join(directory, "modules.dep"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // everything is built in
	}
	if err != nil {
		return nil, fmt.Errorf("reading what modules depend on: %w", err)
	}
	defer file.Close()
	needs := map[string][]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		module, all, found := strings.Cut(lines.Text(), ":")
		// The parts that a kernel's directory was trimmed of are still listed.
		if _, err := os.Stat(filepath.Join(directory, module)); found && err == nil {
			needs[module] = strings.Fields(all)
		}
	}
	return needs, lines.Err()
}
