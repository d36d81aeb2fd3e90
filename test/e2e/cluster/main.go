// Command cluster runs a Kubernetes cluster of real components on this
// machine: see ../README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/e2e/machine"
)

const usage = `usage: cluster up [flags]            start a cluster and install flatnet in it (up -h lists the flags)
       cluster down                  remove it, also what is left after a crash
       cluster status                which machines run
       cluster exec NODE [COMMAND]   run a command on a node
       cluster start|stop|restart NODE SERVICE
       cluster reboot NODE           end all that runs on a node, and start it anew
       cluster build [-kubernetes RELEASE] [-tests] [PROGRAM…]
                                     build what a cluster consists of, and what tests it,
                                     or only some of the programs
`

func main() {
	machine.Main() // does not return in a machine's first process
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "up":
		return upCommand(ctx, args)
	case "down":
		return downCommand(ctx, args)
	case "status":
		return statusCommand(args)
	case "exec":
		return execCommand(args)
	case "start", "stop", "restart":
		return orderCommand(verb, args)
	case "reboot":
		return rebootCommand(args)
	case "build":
		return buildCommand(ctx, args)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
		return nil
	}
}
