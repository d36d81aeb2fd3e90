package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/flatnet-cni/flatnet/test/cluster"
)

// bothSides are the sides of an interface that programs are attached to.
var bothSides = []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}

// eachProgram calls do with each program at sides of an interface, in its namespace. An
// interface that is gone has none.
func eachProgram(n *cluster.Node, name string, sides []ebpf.AttachType, do func(link.AttachedProgram) error) error {
	return n.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil
		}
		for _, side := range sides {
			r, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: side})
			if err != nil {
				return err
			}
			for _, p := range r.Programs {
				if err := do(p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// programs are the names of the programs at both sides of an interface, in their order.
func programs(t *testing.T, n *cluster.Node, name string) (names []string) {
	t.Helper()
	must(t, eachProgram(n, name, bothSides, func(a link.AttachedProgram) error {
		p, err := ebpf.NewProgramFromID(a.ID)
		if err != nil {
			return err
		}
		defer p.Close()
		info, err := p.Info()
		if err == nil {
			names = append(names, info.Name)
		}
		return err
	}))
	return names
}

// ownPrograms are those of them that are flatnet's.
func ownPrograms(t *testing.T, n *cluster.Node, name string) []string {
	t.Helper()
	return slices.DeleteFunc(programs(t, n, name), func(name string) bool {
		return name != "look" && !strings.HasPrefix(name, "learn_")
	})
}

// detach takes all programs from sides of an interface, as somebody else may. The kernel
// tells nobody of it.
// Equivalent to: `bpftool link detach id …`.
func detach(n *cluster.Node, name string, sides ...ebpf.AttachType) error {
	none := true
	err := eachProgram(n, name, sides, func(a link.AttachedProgram) error {
		id, ok := a.LinkID()
		if !ok {
			return fmt.Errorf("program %d has no link", a.ID)
		}
		l, err := link.NewFromID(id)
		if err != nil {
			return err
		}
		defer l.Close()
		none = false
		return l.Detach()
	})
	if err == nil && none {
		return errors.New("no programs are at " + name)
	}
	return err
}

// What somebody else's program says: that those behind it are asked, or that the packet passes.
const (
	next = -1
	pass = 0
)

// somebodysProgram is how the programs of these tests are called.
const somebodysProgram = "somebodys"

// addProgram attaches a program of somebody else's, before all others (link.Head) or behind
// them (link.Tail), until the test ends or remove is called.
func addProgram(t *testing.T, n *cluster.Node, name string, side ebpf.AttachType, where link.Anchor, says int32) (remove func()) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: somebodysProgram, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, says), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	var l link.Link
	must(t, n.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if side == ebpf.AttachNetkitPrimary {
			l, err = link.AttachNetkit(link.NetkitOptions{Interface: i.Index, Program: p, Attach: side, Anchor: where})
		} else {
			l, err = link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: p, Attach: side, Anchor: where})
		}
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return func() { must(t, l.Close()) }
}
