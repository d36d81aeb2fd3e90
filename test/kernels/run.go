package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/kernels/boot"
	"github.com/flatnet-cni/flatnet/test/kernels/debian"
	"github.com/flatnet-cni/flatnet/test/kernels/initramfs"
	"github.com/flatnet-cni/flatnet/test/kernels/outcome"
	"github.com/flatnet-cni/flatnet/test/kernels/plan"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
)

var errNotExist = fs.ErrNotExist

// machine is a kernel that is to boot, and what it is to lack: a key of
// [suite.Lacks], or "".
type machine struct {
	kernel  *debian.Kernel
	without string
}

// column is a machine's column of the table.
type column struct {
	Kernel  *debian.Kernel
	Without string   // what the kernel lacks
	Missing []string // programs
	Suites  map[string]*outcome.Suite
	Failure string // of the machine
	Took    time.Duration
}

// Name is the column's heading.
func (c *column) Name() string {
	if c.Without == "" {
		return c.Kernel.Name
	}
	return c.Kernel.Name + " without " + c.Without
}

// Failed says whether anything did not pass.
func (c *column) Failed() bool {
	for _, s := range c.Suites {
		if s.Failed() {
			return true
		}
	}
	return c.Failure != ""
}

// runner runs suites on kernels.
type runner struct {
	architecture string
	programs     initramfs.Programs
	made         built
	suites       []suite.Suite
	full         bool
	tests        string // a regexp of tests, instead of the suites' own
	accelerator  string
	parameters   string // more of the kernel's command line
	processors   int
	memory       int
	logs         string // directory for what a machine says
	verbose      bool
	out          io.Writer
}

// fast are parameters that change how long something takes, and nothing else. The kernel
// waits for its readers (RCU) at the cost of the processors instead of the clock, and
// leaves out hardening, which emulation pays for with a third of its time.
const fast = "rcupdate.rcu_expedited=1 init_on_alloc=0 randomize_kstack_offset=off nopti nokaslr audit=0 apparmor=0 transparent_hugepage=always"

// start is how long a machine may take to come up, and to go down.
const start = 3 * time.Minute

// run boots a machine and runs the suites on it. What goes wrong is in the column.
func (r *runner) run(ctx context.Context, m machine) *column {
	begin := time.Now()
	kernel := *m.kernel // machines of the same kernel run at the same time
	c := &column{Kernel: &kernel, Without: m.without, Suites: map[string]*outcome.Suite{}}
	if err := r.boot(ctx, c); err != nil {
		c.Failure = err.Error()
	}
	c.Took = time.Since(begin)
	return c
}

func (r *runner) boot(ctx context.Context, c *column) error {
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		return err
	}
	base := filepath.Join(r.logs, strings.ReplaceAll(c.Name(), " ", "-"))
	console, err := os.Create(base + "-console.log")
	if err != nil {
		return err
	}
	defer console.Close()
	log, err := os.Create(base + "-tests.log")
	if err != nil {
		return err
	}
	defer log.Close()
	booted := &boot.Machine{
		Architecture: r.architecture, Kernel: c.Kernel.Image, Initrd: base + ".initramfs",
		Parameters: strings.Join([]string{"quiet", fast, suite.Lacks[c.Without], r.parameters}, " "), CPUs: r.processors, Memory: r.memory, Accelerator: r.accelerator, Console: console,
	}
	todo := planOf(booted.Port(), r.suites, r.full, r.tests)
	for i := range todo.Run {
		todo.Run[i].Variables = append(todo.Run[i].Variables, "FLATNET_WITHOUT="+c.Without)
	}
	c.Missing, err = makeRoot(booted.Initrd, r.programs, c.Kernel, r.made, todo)
	if err != nil {
		return err
	}
	defer os.Remove(booted.Initrd)
	limit := start
	for _, run := range todo.Run {
		limit += run.Limit + start/6
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has not ended within %s", limit))
	defer cancel()
	progress := &progress{runner: r, column: c, log: log, readers: map[string]*outcome.Reader{}}
	err = booted.Run(limited, progress.event)
	return errors.Join(err, progress.left())
}

// progress is what a machine has said so far.
type progress struct {
	runner  *runner
	column  *column
	log     io.Writer
	readers map[string]*outcome.Reader
}

// event takes a line of the machine's results.
func (p *progress) event(line string) (last bool) {
	var e plan.Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprintf(p.log, "(not an event: %q)\n", line)
		return false
	}
	name := p.column.Name()
	switch {
	case e.Kernel != "":
		p.column.Kernel.Release = e.Kernel
		fmt.Fprintf(p.runner.out, "%-8s Linux %s is up\n", name, e.Kernel)
	case e.Ended:
		ended := p.reader(e.Suite).End(e.Failure, e.Took)
		delete(p.readers, e.Suite)
		p.column.Suites[e.Suite] = ended
		fmt.Fprintf(p.runner.out, "%-8s %-18s %s\n", name, e.Suite, cell(ended))
	case e.Suite != "":
		p.reader(e.Suite).Line(e.Line)
		text := strings.ReplaceAll(e.Line, "\x16", "")
		fmt.Fprintf(p.log, "%s: %s", e.Suite, text)
		if p.runner.verbose {
			fmt.Fprintf(p.runner.out, "%-8s %-18s %s", name, e.Suite, text)
		}
	}
	return e.Done
}

func (p *progress) reader(name string) *outcome.Reader {
	if p.readers[name] == nil {
		p.readers[name] = &outcome.Reader{}
	}
	return p.readers[name]
}

// left takes what has no end as failed: the machine has ended before.
func (p *progress) left() error {
	for name, reader := range p.readers {
		p.column.Suites[name] = reader.End("the machine ended before it", 0)
	}
	for _, s := range p.runner.suites {
		if p.column.Suites[s.Name] == nil {
			p.column.Suites[s.Name] = &outcome.Suite{Failure: "the machine ended before it began"}
		}
	}
	return nil
}
