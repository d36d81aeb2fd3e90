package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	Failure string   // of the machine
	Hung    []string // suites during which a machine hung, and that another one has run again
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

// A machine may take start to come up. From then on it says something every
// [plan.Heartbeat]: it hangs if it is silent.
const (
	start  = 3 * time.Minute
	silent = 24 * plan.Heartbeat
)

// run boots a machine and runs the suites on it. What goes wrong is in the column.
func (r *runner) run(ctx context.Context, m machine) *column {
	begin := time.Now()
	kernel := *m.kernel // machines of the same kernel run at the same time
	c := &column{Kernel: &kernel, Without: m.without, Suites: map[string]*outcome.Suite{}}
	if err := r.runAll(ctx, c); err != nil {
		c.Failure = err.Error()
	}
	c.Took = time.Since(begin)
	return c
}

// runAll boots a machine for the suites. If that hangs, another one is booted for the
// suite during which it did and for those after it; a second time is a failure.
func (r *runner) runAll(ctx context.Context, c *column) error {
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
	for left := r.suites; ; {
		progress := &progress{column: c, log: log, out: r.out, verbose: r.verbose}
		err := r.boot(ctx, booted, c, left, progress)
		during := slices.IndexFunc(left, func(s suite.Suite) bool { return s.Name == progress.running })
		if !errors.Is(err, errHangs) || during < 0 || slices.Contains(c.Hung, progress.running) {
			progress.close(left)
			return err
		}
		c.Hung = append(c.Hung, progress.running)
		fmt.Fprintf(r.out, "%-8s %-18s %v\n%-8s another machine is booted for it\n", c.Name(), progress.running, err, c.Name())
		left = left[during:]
	}
}

// errHangs says that a machine does nothing any more.
var errHangs = errors.New("the machine hangs")

// boot runs suites on one machine.
func (r *runner) boot(ctx context.Context, booted *boot.Machine, c *column, suites []suite.Suite, progress *progress) (err error) {
	todo := planOf(booted.Port(), suites, r.full, r.tests)
	for i := range todo.Run {
		todo.Run[i].Variables = append(todo.Run[i].Variables, "FLATNET_WITHOUT="+c.Without)
	}
	c.Missing, err = makeRoot(booted.Initrd, r.programs, c.Kernel, r.made, todo)
	if err != nil {
		return err
	}
	defer os.Remove(booted.Initrd)
	awake, hangs := context.WithCancelCause(ctx)
	defer hangs(nil)
	watchdog := time.AfterFunc(start, func() { hangs(fmt.Errorf("%w: nothing has been heard of it for %s", errHangs, silent)) })
	defer watchdog.Stop()
	err = booted.Run(awake, func(line string) (last bool) {
		watchdog.Reset(silent)
		return progress.event(line)
	})
	return errors.Join(err, progress.hangs)
}
