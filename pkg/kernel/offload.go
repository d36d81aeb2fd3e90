package kernel

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kernels before 5.8 compute a wrong outer UDP checksum where the network card
// is to complete that of a packet which was translated before. With an IPv4
// underlay there is no outer checksum; with an IPv6 one there has to be, so the
// tunnel's offload is switched off there.
const safeChecksumMajor, safeChecksumMinor = 5, 8

func offloadIsSafe(release string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return true // not Linux's usual numbering; leave it alone
	}
	return major > safeChecksumMajor || major == safeChecksumMajor && minor >= safeChecksumMinor
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// Numbers and layouts of linux/ethtool.h and linux/if.h.
const (
	ethtoolGetTxChecksum = 0x16 // ETHTOOL_GTXCSUM
	ethtoolSetTxChecksum = 0x17 // ETHTOOL_STXCSUM
)

type ethtoolValue struct{ command, data uint32 }

type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the rest of the union in struct ifreq
}

// switchOffTxChecksum has the kernel compute checksums of what an interface
// sends itself. Equivalent to: `ethtool -K LINK tx-checksum-ip-generic off`.
func switchOffTxChecksum(link string) error {
	return ethtool(link, &ethtoolValue{command: ethtoolSetTxChecksum})
}

func ethtool(link string, value *ethtoolValue) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening socket: %w", err)
	}
	defer unix.Close(fd)
	request := ethtoolRequest{data: unsafe.Pointer(value)}
	copy(request.name[:unix.IFNAMSIZ-1], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return fmt.Errorf("ethtool %s: %w", link, errno)
	}
	return nil
}
