package requirements

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Of traffic control (linux/rtnetlink.h, linux/pkt_sched.h).
const (
	sizeofTrafficMessage = 20 // struct tcmsg
	tcaKind              = 1  // TCA_KIND
	tcaOptions           = 2  // TCA_OPTIONS
	htbInit              = 2  // TCA_HTB_INIT
	atRoot               = 0xffffffff
	loopback             = 1            // its number, in every namespace
	probeHandle          = 0x7046 << 16 // that nobody has
)

// queue asks for what queues packets (a qdisc) of a kind, on the loopback interface. None
// of the kinds can be without options, and that is what a kernel that knows the kind
// complains about; whatever queues there stays.
type queue string

func (q queue) ask() error {
	s, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return refused(err)
	}
	defer s.close()
	return known(s.execute(unix.RTM_NEWQDISC, newObject, trafficObject(string(q), atRoot, probeHandle, 0)))
}

// filter asks for what sorts packets for htb by their content. Like a queue it needs
// options; but before the kernel looks for the kind it looks for the htb.
type filter string

func (f filter) ask() error {
	return inNewNamespace(func() error {
		s, err := open(unix.NETLINK_ROUTE)
		if err != nil {
			return refused(err)
		}
		defer s.close()
		const version, toQuantum = 3, 10
		global := make([]byte, 20) // struct tc_htb_glob
		binary.NativeEndian.PutUint32(global, version)
		binary.NativeEndian.PutUint32(global[4:], toQuantum)
		htb := append(trafficObject("htb", atRoot, probeHandle, 0), attribute(tcaOptions, attribute(htbInit, global))...)
		if err := s.execute(unix.RTM_NEWQDISC, newObject, htb); err != nil {
			return fmt.Errorf("making a htb to sort packets for: %w", err)
		}
		const priority = 1 << 16
		protocol := uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IP)))
		return known(s.execute(unix.RTM_NEWTFILTER, newObject, trafficObject(string(f), probeHandle, 0, priority|protocol)))
	})
}

const newObject = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_REPLACE

func trafficObject(kind string, parent, handle, info uint32) []byte {
	body := make([]byte, sizeofTrafficMessage)
	for i, n := range []uint32{loopback, handle, parent, info} {
		binary.NativeEndian.PutUint32(body[4+4*i:], n)
	}
	return append(body, text(tcaKind, kind)...)
}

// known is nil for an answer that is about the options: the kind is known.
func known(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return refused(err)
}

// inNewNamespace calls f in a network namespace that nobody else sees.
func inNewNamespace(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("making a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
