package fastpath

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/flatnet-cni/flatnet/pkg/netlink"
)

// links attach by tcx, which kernels have from Linux 6.6 on: nothing has to be made at an
// interface first, and a link ends with the process. The zero value has none.
type links struct {
	made map[int][2]link.Link // by the interface's number
}

// sidesOfTCX are the places of look and learn.
var sidesOfTCX = [2]ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}

func (*links) String() string { return "tcx" }

// attach puts both programs behind those of others.
func (l *links) attach(s *netlink.Socket, index int, programs [2]numbered) (reason string, written bool, err error) {
	if _, known := l.made[index]; known {
		if linked(index, programs) {
			return "", false, nil
		}
		_ = l.detach(s, index)
	}
	var made [2]link.Link
	for i, attach := range sidesOfTCX {
		made[i], err = link.AttachTCX(link.TCXOptions{Interface: index, Program: programs[i].Program, Attach: attach})
		if err != nil {
			if i > 0 {
				made[0].Close()
			}
			return "", false, fmt.Errorf("attaching the programs: %w", err)
		}
	}
	if l.made == nil {
		l.made = map[int][2]link.Link{}
	}
	l.made[index] = made
	return "", true, nil
}

// linked reports whether both programs are where they were attached.
func linked(index int, programs [2]numbered) bool {
	for i, attach := range sidesOfTCX {
		r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: attach})
		if err != nil {
			return false
		}
		if !slices.ContainsFunc(r.Programs, func(p link.AttachedProgram) bool { return p.ID == programs[i].id }) {
			return false
		}
	}
	return true
}

func (l *links) detach(_ *netlink.Socket, index int) error {
	for _, one := range l.made[index] {
		if one != nil {
			one.Close()
		}
	}
	delete(l.made, index)
	return nil
}

func (l *links) close() {
	for index := range l.made {
		_ = l.detach(nil, index)
	}
}

// otherPrograms counts programs, but for one, that see what a pod's interface sends to the
// pod and are attached by links: those of tcx, and those of a netkit pair, which are asked
// behind them. The latter's at the pod's end see what the pod sends before look does, so
// they are not passed by.
func otherPrograms(index int, own ebpf.ProgramID) (count int) {
	for _, side := range []ebpf.AttachType{ebpf.AttachTCXEgress, ebpf.AttachNetkitPrimary} {
		r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
		if err != nil {
			continue // no such side: it is no netkit, or the kernel knows none
		}
		for _, p := range r.Programs {
			if p.ID != own {
				count++
			}
		}
	}
	return count
}

// HasLinks reports whether the kernel has links of tcx.
func HasLinks() bool {
	const loopback = 1 // every network namespace has it
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return err == nil
}
