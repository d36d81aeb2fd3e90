// Command flatnetd is flatnet's node agent; see docs/operations.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/flatnet-cni/flatnet/pkg/agent"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(agent.Main(ctx, version, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
