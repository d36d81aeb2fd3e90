package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// redirected is by hand with programs that redirect every packet and do nothing else: the
// shortest of all ways, which nothing that redirects can be faster than. They neither look
// at a packet nor change one; so that it arrives all the same, it has the MAC address from
// the beginning that it has to have when it comes out.
func (s *paths) redirected(context.Context) (path, error) {
	p, nodes, err := s.makeByHand(redirectOnly)
	if err != nil {
		return p, err
	}
	lab := s.labs[len(s.labs)-1]
	between := map[place]string{direct: "eth0", vxlan: "vx"}[s.where]
	ends := [2]redirectEnd{
		{lab: lab, node: nodes[0].Namespace, pod: p.from, wire: "veth2", mac: podEnd},
		{lab: lab, node: nodes[len(nodes)-1].Namespace, pod: p.to, wire: "veth3", mac: podEnd},
	}
	for i := range ends {
		if between == "" {
			continue
		}
		if ends[i].mac, err = macOf(ends[i].node, between); err != nil {
			return p, err
		}
	}
	for i, end := range ends {
		other := ends[1-i]
		err := commands(end.pod,
			"ip link set eth0 address "+end.mac,
			"ip neighbour replace 169.254.1.1 lladdr "+other.mac+" dev eth0 nud permanent",
			"ip neighbour replace fe80::1 lladdr "+other.mac+" dev eth0 nud permanent")
		switch {
		case err != nil:
		case between == "":
			err = end.redirect(end.wire, other.wire, asm.FnRedirectPeer)
		default:
			err = errors.Join(end.redirect(end.wire, between, asm.FnRedirect), end.redirect(between, end.wire, asm.FnRedirectPeer))
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// redirectEnd is a pod and its node.
type redirectEnd struct {
	lab       *netlab.Lab
	node, pod *netlab.Namespace
	wire, mac string // the pod's interface on the node, and in the pod
}

// redirect has everything that comes in by one interface of the node go out by another.
func (e redirectEnd) redirect(from, to string, helper asm.BuiltinFunc) error {
	source, err := e.node.Netlink().LinkByName(from)
	if err != nil {
		return fmt.Errorf("finding %s: %w", from, err)
	}
	target, err := e.node.Netlink().LinkByName(to)
	if err != nil {
		return fmt.Errorf("finding %s: %w", to, err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(target.Attrs().Index)),
			asm.Mov.Imm(asm.R2, 0),
			helper.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("loading a program that redirects: %w", err)
	}
	defer program.Close()
	return e.node.Do(func() error {
		attached, err := link.AttachTCX(link.TCXOptions{
			Interface: source.Attrs().Index, Program: program, Attach: ebpf.AttachTCXIngress,
		})
		if err != nil {
			return fmt.Errorf("attaching a program that redirects to %s: %w", from, err)
		}
		e.lab.OnClose(attached.Close)
		return nil
	})
}

func macOf(space *netlab.Namespace, name string) (string, error) {
	found, err := space.Netlink().LinkByName(name)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", name, err)
	}
	return found.Attrs().HardwareAddr.String(), nil
}
