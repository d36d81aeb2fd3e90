package fastpath_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/flatnet-cni/flatnet/pkg/fastpath"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netlink"
	"github.com/flatnet-cni/flatnet/test/cluster"

	"golang.org/x/sys/unix"
)

// side is one of an interface's, that programs are attached to.
type side int

const (
	ingress side = iota
	egress
	primary // of a netkit pair: what the node sends to the pod, behind egress
)

var bothSides = []side{ingress, egress}

// anchor is where a program is among others.
type anchor int

const (
	head anchor = iota // before all others
	tail               // behind them
)

// attaching is how programs are at interfaces, flatnet's and others': by links of tcx, or
// by filters of tc. The interface is given by its number, in its namespace.
type attaching interface {
	// String is what the status calls it.
	String() string
	// programs are the names of those at a side, in their order.
	programs(index int, at side) (names []string, err error)
	// detach takes away all from a side, and says how many that were.
	detach(index int, at side) (count int, err error)
	// add puts a program there, until remove is called.
	add(p *ebpf.Program, index int, at side, where anchor) (remove func() error, err error)
}

// way is how flatnetd attaches on this kernel.
func way() attaching {
	if fastpath.HasLinks() {
		return byLinks{}
	}
	return byFilters{}
}

// atSides calls do for sides of an interface, in its namespace. One that is gone has none.
func atSides(n *cluster.Node, name string, sides []side, do func(index int, at side) error) error {
	return n.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil
		}
		for _, at := range sides {
			if err := do(i.Index, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// programs are the names of the programs at both sides of an interface, in their order.
func programs(t *testing.T, n *cluster.Node, name string) (all []string) {
	t.Helper()
	must(t, atSides(n, name, bothSides, func(index int, at side) error {
		names, err := way().programs(index, at)
		all = append(all, names...)
		return err
	}))
	return all
}

// ownPrograms are those of them that are flatnet's.
func ownPrograms(t *testing.T, n *cluster.Node, name string) []string {
	t.Helper()
	return slices.DeleteFunc(programs(t, n, name), func(name string) bool {
		return name != "look" && !strings.HasPrefix(name, "learn")
	})
}

// detach takes all programs from sides of an interface, as somebody else may. Of links the
// kernel tells nobody.
func detach(n *cluster.Node, name string, sides ...side) error {
	count := 0
	err := atSides(n, name, sides, func(index int, at side) error {
		some, err := way().detach(index, at)
		count += some
		return err
	})
	if err == nil && count == 0 {
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

// addProgram attaches a program of somebody else's until the test ends or remove is called.
func addProgram(t *testing.T, n *cluster.Node, name string, at side, where anchor, says int32) (remove func()) {
	t.Helper()
	// Before Linux 5.11 a program is locked memory, of which there may be too little.
	must(t, rlimit.RemoveMemlock())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: somebodysProgram, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, says), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	var undo func() error
	must(t, atSides(n, name, []side{at}, func(index int, at side) (err error) {
		undo, err = way().add(p, index, at, where)
		return err
	}))
	t.Cleanup(func() { _ = n.Do(undo) }) // a link ends when nobody holds it
	return func() { must(t, n.Do(undo)) }
}

// clsact makes the qdisc for filters where there is none.
func clsact(t *testing.T, n *cluster.Node, name string) {
	t.Helper()
	must(t, atSides(n, name, []side{ingress}, func(index int, _ side) error {
		return withSocket(func(s *netlink.Socket) error { return kernel.AddClsact(s, index) })
	}))
}

// queueAtIngress is what qdisc an interface has there.
func queueAtIngress(t *testing.T, n *cluster.Node, name string) (kind string) {
	t.Helper()
	must(t, atSides(n, name, []side{ingress}, func(index int, _ side) error {
		return withSocket(func(s *netlink.Socket) (err error) {
			kind, err = kernel.IngressQueue(s, index)
			return err
		})
	}))
	return kind
}

func withSocket(f func(*netlink.Socket) error) error {
	const bytes = 64 << 10
	s, err := netlink.Open(unix.NETLINK_ROUTE, bytes)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(s)
}
