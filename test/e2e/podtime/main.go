// Command podtime measures how long a pod of a cluster waits for its network,
// with flatnet and with the reference plugins: see ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "podtime:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	b := &bench{namespace: fmt.Sprintf("podtime-%d", time.Now().UnixMilli()%1e6), out: os.Stdout}
	output := flag.String("o", "", "put the result into its section of this `file`")
	flag.StringVar(&b.node.name, "node", "worker1", "`node` of the pods")
	flag.IntVar(&b.rounds, "rounds", 5, "`number` of turns that each contender has")
	flag.IntVar(&b.pods, "pods", 60, "`number` of pods in a burst")
	flag.IntVar(&b.singles, "singles", 5, "`number` of pods one after another, each round")
	flag.Parse()
	if b.rounds < 1 || b.pods < 1 || b.singles < 1 {
		return errors.New("-rounds, -pods and -singles begin at 1")
	}
	root, err := reference.Repository()
	if err != nil {
		return err
	}
	b.node.lab, err = lab.Open(lab.Directory, root, os.Stdout)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no cluster: `make cluster` starts one")
	}
	if err != nil {
		return err
	}
	options := b.node.lab.Plan().Options
	if options.CNI != "flatnet" {
		return fmt.Errorf("the cluster was started with -cni %s: flatnet is not there to be measured", options.CNI)
	}
	before, err := page.Look()
	if err != nil {
		return err
	}
	all := contenders(b.node.lab.Plan())
	found, err := b.run(ctx, all)
	if err != nil {
		return err
	}
	runtime, err := b.node.lab.Kubectl("get", "node", b.node.name, "-o", "jsonpath={.status.nodeInfo.containerRuntimeVersion}")
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s\n%s- container runtime: %s\n", section(all[0], all[1], found, b.pods), before, strings.Replace(runtime, "://", " ", 1)) +
		fmt.Sprintf("- in the second before a turn, the processors were idle for at least %.0f %%\n", 100*b.idle)
	fmt.Println("\n" + text)
	if *output == "" {
		return nil
	}
	return writeSection(*output, options.Family, text)
}
