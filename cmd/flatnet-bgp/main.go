// Command flatnet-bgp speaks BGP for flatnetd, which starts it.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/flatnet-cni/flatnet/pkg/bgp/speaker"
)

// version is set by the build.
var version = "development"

func main() {
	if len(os.Args) > 1 {
		fmt.Println("flatnet-bgp", version, "is started by flatnetd --bgp-config")
		return
	}
	// As flatnetd: it is idle nearly always, and memory is what a node has little of.
	debug.SetGCPercent(33)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := speaker.Main(os.Stdin, os.Stdout, log); err != nil {
		fmt.Fprintln(os.Stderr, "flatnet-bgp:", err)
		os.Exit(1)
	}
}
