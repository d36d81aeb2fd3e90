package fastpath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// programs are those in the kernel, with their maps.
type programs struct {
	programObjects
	look, learnPod, learnLink numbered
}

// numbered is a program with the number that the kernel knows it by.
type numbered struct {
	*ebpf.Program
	id ebpf.ProgramID
}

// sides are the programs at ingress and at egress of an interface.
func (p *programs) sides(pod bool) [2]numbered {
	if pod {
		return [2]numbered{p.look, p.learnPod}
	}
	return [2]numbered{p.look, p.learnLink}
}

// load brings the programs and their maps into the kernel; nothing is attached yet.
func load() (*programs, error) {
	// Before Linux 5.11 maps are memory that a process locks, and a limit that cannot be
	// raised may be high enough all the same.
	limit := rlimit.RemoveMemlock()
	spec, err := loadProgram()
	if err != nil {
		return nil, fmt.Errorf("reading the programs: %w", err)
	}
	spec.Maps[programMapFlows].MaxEntries = Flows
	p := &programs{}
	if err := spec.LoadAndAssign(&p.programObjects, nil); err != nil {
		switch {
		case errors.Is(err, os.ErrPermission) && limit != nil:
			return nil, fmt.Errorf("loading the programs is not permitted: CAP_BPF and CAP_PERFMON are needed, and before Linux 5.11 more locked memory: %w", err)
		case errors.Is(err, os.ErrPermission):
			return nil, fmt.Errorf("loading the programs is not permitted: CAP_BPF and CAP_PERFMON are needed, and a seccomp profile that allows bpf(2): %w", err)
		}
		return nil, fmt.Errorf("loading the programs: %w", err)
	}
	for to, program := range map[*numbered]*ebpf.Program{&p.look: p.Look, &p.learnPod: p.LearnPod, &p.learnLink: p.LearnLink} {
		info, err := program.Info()
		if err == nil {
			id, known := info.ID()
			if !known {
				err = errors.New("the kernel does not number them")
			}
			*to = numbered{program, id}
		}
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("looking at the programs: %w", err)
		}
	}
	return p, nil
}
