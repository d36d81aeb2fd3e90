// Command bench measures flatnet beside its peers, and prints what it found.
//
//	make build && go run ./test/bench
//
// Peers are the plugins of Debian's package containernetworking-plugins, and a floor:
// a program that makes the same kernel objects as flatnet from constants. All of them
// are executed through libcni in exactly the same way, in nodes and pods that are
// network namespaces of the benchmark's own, one after the other in every round. The
// data path is measured beside the same made by hand, and flatnetd in large clusters.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func main() {
	output := flag.String("o", "", "write the report to this `file`; text between its explanation marks is kept, and with -run the other sections")
	quick := flag.Bool("quick", false, "measure very little: tells that everything runs, not how fast it is")
	only := flag.String("run", "", "measure only the sections whose name matches this `regexp`")
	contenders := flag.String("contenders", "", "of the data path, measure only the contenders whose name matches this `regexp`: to look at some of them for long, with -rounds, and not with -o")
	rounds := flag.Int("rounds", 0, "of everybody's data path; 0 is the usual number")
	older := flag.String("before", "", "compare an ADD with that of the flatnet in this `directory` too, which was built from an older revision")
	flag.Parse()
	// Where nft and iptables are, which is not in everybody's PATH.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if err := netlab.Enter(); err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, options{*output, *only, *older, *contenders, *quick, *rounds}); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// options are the command line's.
type options struct {
	output, only, older, contenders string
	quick                           bool
	rounds                          int
}

func run(ctx context.Context, o options) error {
	wanted, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("parsing -run: %w", err)
	}
	contenders, err := regexp.Compile(o.contenders)
	if err != nil {
		return fmt.Errorf("parsing -contenders: %w", err)
	}
	if o.output != "" && o.contenders != "" {
		return errors.New("-contenders leaves some out, so there is nothing for -o to write")
	}
	floor, err := buildFloor(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(floor)
	b := &bench{floor: floor, peers: "/usr/lib/cni", ours: "bin", before: o.older, amount: full, contenders: contenders}
	if o.quick {
		b.amount = smoke
	}
	if o.rounds > 0 {
		b.amount.pathRounds = o.rounds
	}
	before, err := page.Look()
	if err != nil {
		return err
	}
	fmt.Println(before)
	var done []section
	for _, s := range sections {
		if !wanted.MatchString(s.name) {
			continue
		}
		fmt.Printf("## %s\n\n", s.title)
		result, err := s.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		result.outline = s
		fmt.Println(result)
		done = append(done, result)
	}
	after, err := page.Look()
	if err != nil {
		return err
	}
	fmt.Println(after.Since(before))
	if o.output != "" {
		if err := writeDocument(o.output, before, after, done, len(done) == len(sections)); err != nil {
			return err
		}
	}
	return b.complete()
}
