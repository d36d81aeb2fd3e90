package ipam

import (
	"crypto/sha256"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelBootID returns the id that the kernel drew when it started, or "".
func kernelBootID() string {
	// Not os.ReadFile, which takes thrice as many system calls.
	fd, err := unix.Open("/proc/sys/kernel/random/boot_id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [64]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b[:n]))
}

func markOf(bootID string) bootMark {
	if bootID == "" {
		return bootMark{}
	}
	sum := sha256.Sum256([]byte(bootID))
	return bootMark(sum[:16])
}

// otherBoot says whether a mark proves that records are of another boot.
func (s *Store) otherBoot(m bootMark) bool {
	return m != bootMark{} && s.boot != bootMark{} && m != s.boot
}
