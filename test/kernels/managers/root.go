package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suite is the release of Debian that the machine runs.
const suite = "bookworm"

// packages are what it has besides Debian's essential ones: the managers that are
// tried, what they need to start, and a kernel.
var packages = []string{
	"systemd", "systemd-sysv", "libpam-systemd", "udev", "dbus", "kmod", "procps", "zstd",
	"linux-image-cloud-amd64", "initramfs-tools",
	"iproute2", "iptables", "conntrack", "containernetworking-plugins",
	"network-manager", "firewalld", "nftables", "ufw", "docker.io",
}

// asleep are the units that the packages start by themselves. A row starts what it is
// about; the rest would only make the emulated machine slower.
var asleep = []string{
	"NetworkManager", "NetworkManager-wait-online", "NetworkManager-dispatcher", "firewalld", "ufw", "nftables",
	"docker.service", "docker.socket", "containerd", "systemd-networkd", "systemd-timesyncd",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap", "fstrim.timer",
	"getty@tty1", "wpa_supplicant", "ModemManager", "man-db.timer",
}

// startUnit runs what the second disk says, once the machine is up.
const startUnit = `[Unit]
Description=the rows of test/kernels/managers
RequiresMountsFor=/flatnet
After=dbus.service systemd-udev-settle.service
Wants=systemd-udev-settle.service

[Service]
ExecStart=/flatnet/managers -guest
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
`

// makeImage makes a root disk of Debian with systemd, once for each list of packages,
// and returns the directory with image, kernel and initrd.
func makeImage(ctx context.Context, cache string) (string, error) {
	key := sha256.Sum256([]byte(fmt.Sprint(suite, packages, asleep, startUnit)))
	directory := filepath.Join(cache, fmt.Sprintf("managers-%s-%x", suite, key[:6]))
	if _, err := os.Stat(directory); err == nil {
		return directory, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making a place for Debian: %w", err)
	}
	fresh, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return "", fmt.Errorf("making a place for Debian: %w", err)
	}
	defer os.RemoveAll(fresh)
	fmt.Println("making a Debian with systemd and network managers: takes about four minutes, once")
	root := filepath.Join(fresh, "root")
	// What it mounts below the root is gone with its namespace, however it ends.
	if err := run(ctx, "unshare", "--mount", "debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, root, mirror()); err != nil {
		return "", err
	}
	if err := configure(ctx, root); err != nil {
		return "", err
	}
	for name, pattern := range map[string]string{"vmlinuz": "vmlinuz-*", "initrd": "initrd.img-*"} {
		found, err := filepath.Glob(filepath.Join(root, "boot", pattern))
		if err != nil || len(found) != 1 {
			return "", fmt.Errorf("looking for %s of Debian: found %v", name, found)
		}
		if err := os.Rename(found[0], filepath.Join(fresh, name)); err != nil {
			return "", err
		}
	}
	if err := makeDisk(ctx, filepath.Join(fresh, "root.ext4"), "2500M", root); err != nil {
		return "", err
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	return directory, os.Rename(fresh, directory)
}

// configure makes the machine start fast, and what is on the second disk.
func configure(ctx context.Context, root string) error {
	for path, content := range map[string]string{
		"etc/fstab":                             "/dev/vda / ext4 defaults 0 0\n/dev/vdb /flatnet ext4 defaults 0 0\n",
		"etc/hostname":                          "n1\n",
		"etc/hosts":                             "127.0.0.1 localhost n1\n",
		"etc/systemd/system/rows.service":       startUnit,
		"etc/systemd/network/80-eth0.network":   "", // each row writes its own
		"etc/systemd/system.conf.d/slow.conf":   "[Manager]\nDefaultTimeoutStartSec=300s\n",
		"etc/systemd/journald.conf.d/here.conf": "[Journal]\nStorage=volatile\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "flatnet"), 0o755); err != nil {
		return err
	}
	for _, unit := range asleep {
		// Not every release has each of them.
		_ = run(ctx, "chroot", root, "systemctl", "disable", "--quiet", unit)
	}
	if err := run(ctx, "chroot", root, "systemctl", "enable", "--quiet", "rows.service"); err != nil {
		return err
	}
	return run(ctx, "chroot", root, "apt-get", "clean")
}

// makeDisk makes an image of a file system that holds what a directory does.
func makeDisk(ctx context.Context, image, size, directory string) error {
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-d", directory, image, size)
}

// run runs a program; its error has what it printed.
func run(ctx context.Context, name string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", name, err, tail(string(out), 2000))
	}
	return nil
}

// mirror is where the machine's apt has Debian from; else the well-known one.
func mirror() string {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages").Output()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			if uri, own := strings.CutPrefix(line, "Debian Debian "); own {
				return strings.TrimSpace(uri)
			}
		}
	}
	return "http://deb.debian.org/debian"
}

func tail(text string, size int) string { return text[max(0, len(text)-size):] }
