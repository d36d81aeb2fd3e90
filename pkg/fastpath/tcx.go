package fastpath

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// The programs are attached by links of tcx, which kernels have from Linux 6.6 on: to make
// the qdisc of filters, which there were before, takes an interface's queues away for a
// moment, and packets are lost. Links end with the process, and then packets take the
// kernel's path.

// sidesOfTCX are the places of look and learn.
var sidesOfTCX = [2]ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}

// link attaches both programs behind those of others. It reports whether they had to be
// attached.
func (k *Keeper) link(index int, programs [2]*ebpf.Program) (written bool, err error) {
	if _, known := k.links[index]; known {
		if k.linked(index, programs) {
			return false, nil
		}
		k.unlink(index)
	}
	var made [2]link.Link
	for i, attach := range sidesOfTCX {
		made[i], err = link.AttachTCX(link.TCXOptions{Interface: index, Program: programs[i], Attach: attach})
		if err != nil {
			if i > 0 {
				made[0].Close()
			}
			return false, fmt.Errorf("attaching the programs: %w", err)
		}
	}
	if k.links == nil {
		k.links = map[int][2]link.Link{}
	}
	k.links[index] = made
	return true, nil
}

// linked reports whether both programs are where they were attached.
func (k *Keeper) linked(index int, programs [2]*ebpf.Program) bool {
	for i, attach := range sidesOfTCX {
		r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: attach})
		if err != nil {
			return false
		}
		found := false
		for _, p := range r.Programs {
			found = found || uint32(p.ID) == k.programs.ids[programs[i]]
		}
		if !found {
			return false
		}
	}
	return true
}

// unlink takes the programs from an interface.
func (k *Keeper) unlink(index int) {
	for _, l := range k.links[index] {
		if l != nil {
			l.Close()
		}
	}
	delete(k.links, index)
}

// otherPrograms counts somebody else's programs that see what a pod's interface sends to the
// pod: those of tcx, and those of a netkit pair, which are asked behind them. The latter's
// at the pod's end see what the pod sends before look does, so they are not passed by.
func (k *Keeper) otherPrograms(index int) (count int) {
	for _, side := range []ebpf.AttachType{ebpf.AttachTCXEgress, ebpf.AttachNetkitPrimary} {
		r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
		if err != nil {
			continue // no such side: it is no netkit, or the kernel knows none
		}
		for _, p := range r.Programs {
			if uint32(p.ID) != k.programs.ids[k.programs.LearnPod] {
				count++
			}
		}
	}
	return count
}

// HasLinks reports whether the kernel can attach programs to an interface that is in use
// without losing packets.
func HasLinks() bool {
	const loopback = 1 // every network namespace has it
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return err == nil
}
