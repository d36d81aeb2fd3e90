package fastpath_test

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// olderVariable, set to anything, has this kernel answer as one before Linux 6.6, which has
// no tcx: to the tests and to all that they start. So filters are tested where there are
// links, without a word of it in flatnetd.
const olderVariable = "FLATNET_FASTPATH_WITHOUT_TCX"

// beOlder has the system call bpf(2) know neither links nor who asks what is attached.
func beOlder() {
	if os.Getenv(olderVariable) == "" {
		return
	}
	const (
		load, equal, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		number, command     = 0, 16 // in struct seccomp_data, of a machine of little endian
		allow, refuse       = 0x7fff0000, 0x00050000 | uint32(unix.EINVAL)
	)
	program := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_BPF, Jf: 3},
		{Code: load, K: command},
		{Code: equal, K: unix.BPF_LINK_CREATE, Jt: 2},
		{Code: equal, K: unix.BPF_PROG_QUERY, Jt: 1},
		{Code: answer, K: allow},
		{Code: answer, K: refuse},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const setFilter, allThreads = 1, 1
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setFilter, allThreads, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		fmt.Fprintln(os.Stderr, "answering as an older kernel:", errno)
		os.Exit(1)
	}
}
