// Command kernels runs flatnet's tests on other kernels than this machine's:
// each boots in an emulated machine, with a root made of this machine's programs
// and the test binaries in it, and at the end there is a table.
//
//	go run ./test/kernels                               # the four that flatnet is tried on
//	go run ./test/kernels -k 6.1 -run pkg/fabric -v     # one suite on one
//	go run ./test/kernels -k 6.12 -without vxlan,ipv6   # what a kernel can lack
//	go run ./test/kernels -k ~/linux/arch/x86/boot/bzImage -full
//
// It needs no root and no hardware's help, and takes minutes: emulation makes
// programs about ten times slower. Exits with 1 if anything has failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/kernels/debian"
	"github.com/flatnet-cni/flatnet/test/kernels/initramfs"
	"github.com/flatnet-cni/flatnet/test/kernels/suite"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// options are the command line's.
type options struct {
	kernels, run, report, from, without string
	jobs                                int
	update                              bool
	runner
}

func main() {
	var o options
	flag.StringVar(&o.kernels, "k", strings.Join(debian.Names(), ","), "`kernels`: these, suites of Debian, or IMAGE[:MODULES]")
	flag.StringVar(&o.run, "run", "", "only the suites whose names match this `regexp`")
	flag.StringVar(&o.tests, "tests", "", "only the tests that match this `regexp`, as go test's -run")
	flag.StringVar(&o.without, "without", "", "boot each kernel without each of these `modules`, or all that are known, and see what flatnet makes of it")
	flag.StringVar(&o.parameters, "append", "", "more `parameters` of the kernel's command line")
	flag.IntVar(&o.processors, "smp", 2, "of a guest")
	flag.BoolVar(&o.full, "full", false, "run everything, also what takes long under emulation")
	flag.IntVar(&o.jobs, "j", 2, "kernels at the same `time`")
	flag.StringVar(&o.architecture, "arch", nativeArchitecture, "the kernels' `architecture`: amd64 or arm64")
	flag.StringVar(&o.from, "programs", "", "take ip, nft and so on from this `suite` of Debian (default: the machine's own; of another architecture, trixie)")
	flag.StringVar(&o.accelerator, "accel", "", "qemu's `accelerator` (default: emulation)")
	flag.IntVar(&o.memory, "memory", 3072, "of a guest, in `MiB`")
	flag.StringVar(&o.report, "report", "", "write the table to this `file`, too")
	flag.BoolVar(&o.update, "update", false, "download the kernels that Debian has today")
	flag.BoolVar(&o.verbose, "v", false, "show what the tests print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	passed, err := o.work(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func (o *options) work(ctx context.Context) (passed bool, err error) {
	repository, err := reference.Repository()
	if err != nil {
		return false, err
	}
	if err := os.Chdir(repository); err != nil {
		return false, err
	}
	o.out = os.Stdout
	if o.suites, err = chosen(o.run); err != nil {
		return false, err
	}
	lacks, err := chosenLacks(o.without)
	if err != nil {
		return false, err
	}
	if o.without != "" {
		o.suites = suite.Without
	}
	var machines []machine
	for _, name := range strings.Split(o.kernels, ",") {
		kernel, err := debian.GetKernel(ctx, debian.Cache(), name, o.architecture, o.update, os.Stdout)
		if err != nil {
			return false, err
		}
		for _, lack := range lacks {
			machines = append(machines, machine{kernel, lack})
		}
	}
	if o.programs, err = userland(ctx, o.from, o.architecture); err != nil {
		return false, err
	}
	fmt.Printf("building for %s\n", o.architecture)
	if o.made, err = build(ctx, repository, o.architecture, o.suites); err != nil {
		return false, err
	}
	o.logs = filepath.Join(string(o.made), "logs")
	columns := o.all(ctx, machines)
	fmt.Println()
	write(os.Stdout, columns, o.suites, o.full)
	if o.report != "" {
		file, err := os.Create(o.report)
		if err != nil {
			return false, err
		}
		write(file, columns, o.suites, o.full)
		if err := file.Close(); err != nil {
			return false, err
		}
	}
	passed = true
	for _, c := range columns {
		passed = passed && !c.Failed()
	}
	if !passed {
		fmt.Printf("\nWhat the machines said is in %s.\n", o.logs)
	}
	return passed, ctx.Err()
}

// all runs machines, some at the same time, and returns their columns in order.
func (o *options) all(ctx context.Context, machines []machine) []*column {
	columns := make([]*column, len(machines))
	places := make(chan struct{}, max(1, o.jobs))
	var running sync.WaitGroup
	for i, m := range machines {
		places <- struct{}{}
		running.Go(func() {
			columns[i] = o.runner.run(ctx, m)
			<-places
		})
	}
	running.Wait()
	return columns
}

// chosen are the suites whose names match.
func chosen(pattern string) ([]suite.Suite, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("reading -run: %w", err)
	}
	var some []suite.Suite
	for _, s := range suite.All {
		if expression.MatchString(s.Name) {
			some = append(some, s)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("reading -run: no suite's name matches %s", pattern)
	}
	return some, nil
}

// chosenLacks are what kernels are booted without: once without nothing where
// nothing is named.
func chosenLacks(names string) ([]string, error) {
	if names == "all" {
		return slices.Sorted(maps.Keys(suite.Lacks)), nil
	}
	chosen := strings.Split(names, ",")
	for _, name := range chosen {
		if _, known := suite.Lacks[name]; names != "" && !known {
			return nil, fmt.Errorf("reading -without: %q is none of all, %s", name, strings.Join(slices.Sorted(maps.Keys(suite.Lacks)), ", "))
		}
	}
	return chosen, nil
}

// userland is where a guest's programs are from.
func userland(ctx context.Context, suite, architecture string) (initramfs.Programs, error) {
	if suite == "" && architecture == nativeArchitecture {
		return "/", nil
	}
	if suite == "" {
		suite = "trixie"
	}
	root, err := debian.GetPrograms(ctx, debian.Cache(), suite, architecture, os.Stdout,
		"zlib1g", "busybox-static", "bash", "iproute2", "nftables", "iptables", "iputils-ping", "kmod", "procps", "util-linux", "conntrack", "ethtool")
	return initramfs.Programs(root), err
}
