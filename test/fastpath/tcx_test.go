package fastpath_test

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// byLinks attaches by tcx.
type byLinks struct{}

func (byLinks) String() string { return "tcx" }

// attach is what the library calls a side.
func (at side) attach() ebpf.AttachType {
	return [...]ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress, ebpf.AttachNetkitPrimary}[at]
}

func (byLinks) each(index int, at side, do func(link.AttachedProgram) error) error {
	r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at.attach()})
	if err != nil {
		return err
	}
	for _, p := range r.Programs {
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

func (b byLinks) programs(index int, at side) (names []string, err error) {
	err = b.each(index, at, func(a link.AttachedProgram) error {
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
	})
	return names, err
}

// detach is equivalent to: `bpftool link detach id …`.
func (b byLinks) detach(index int, at side) (count int, err error) {
	err = b.each(index, at, func(a link.AttachedProgram) error {
		id, ok := a.LinkID()
		if !ok {
			return fmt.Errorf("program %d has no link", a.ID)
		}
		l, err := link.NewFromID(id)
		if err != nil {
			return err
		}
		defer l.Close()
		count++
		return l.Detach()
	})
	return count, err
}

func (byLinks) add(p *ebpf.Program, index int, at side, where anchor) (remove func() error, err error) {
	place := link.Head()
	if where == tail {
		place = link.Tail()
	}
	if at == primary {
		l, err := link.AttachNetkit(link.NetkitOptions{Interface: index, Program: p, Attach: at.attach(), Anchor: place})
		if err != nil {
			return nil, err
		}
		return l.Close, nil
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: at.attach(), Anchor: place})
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}
