package agent

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/node"
)

// Exit statuses of flatnetd.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `flatnetd joins a Kubernetes node's pods to those of the other nodes.

  flatnetd [flags]                   run the agent
  flatnetd status [-o json] [flags]  ask the running agent how the node is joined
  flatnetd cleanup [flags]           remove all that flatnet made on this node, pods' interfaces included
  flatnetd version

Every flag takes its default from a variable: --log-level from ` + EnvironmentPrefix + `LOG_LEVEL.

`

// Main is flatnetd: it does what the arguments say and returns the exit status.
func Main(ctx context.Context, version string, arguments []string, getenv func(string) string, out, errOut io.Writer) int {
	command := ""
	if len(arguments) > 0 && arguments[0] != "" && arguments[0][0] != '-' {
		command, arguments = arguments[0], arguments[1:]
	}
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	set.SetOutput(errOut)
	set.Usage = func() {
		fmt.Fprint(errOut, usage)
		set.PrintDefaults()
	}
	config := Flags(set, getenv)
	output := ""
	if command == "status" {
		set.StringVar(&output, "o", "", "`json` for machines")
	}
	if err := set.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	c, err := config()
	c.Version = version
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("unknown argument %q", set.Arg(0))
	}
	if err == nil && output != "" && output != "json" {
		err = fmt.Errorf("-o %q is not json", output)
	}
	if err != nil {
		fmt.Fprintln(errOut, "flatnetd:", err)
		return exitUsage
	}
	switch command {
	case "":
		err = serve(ctx, c, errOut)
	case "status":
		err = printStatus(ctx, c, output, out)
	case "cleanup":
		err = cleanup(ctx, c, out, errOut)
	case "version":
		fmt.Fprintln(out, version)
	default:
		fmt.Fprintf(errOut, "flatnetd: unknown command %q: status, cleanup or version, or none\n", command)
		return exitUsage
	}
	if err != nil {
		fmt.Fprintln(errOut, "flatnetd:", err)
		return exitFailed
	}
	return exitOK
}

// collectorPercent lets the heap grow by a third before the garbage collector
// runs, instead of doubling: the agent is idle nearly always, and memory is
// what a node has little of.
const collectorPercent = 33

func serve(ctx context.Context, c Config, errOut io.Writer) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectorPercent)
	}
	log := c.Logger(errOut)
	source, err := c.source(log)
	if err != nil {
		return err
	}
	a, err := New(c, source, log)
	if err != nil {
		return fmt.Errorf("%w: flatnetd needs CAP_NET_ADMIN in the node's network namespace", err)
	}
	return a.Run(ctx)
}

// source returns where the nodes come from.
func (c Config) source(log *slog.Logger) (node.Source, error) {
	if c.NodesFile != "" {
		return node.NewFile(c.NodesFile, log), nil
	}
	client, err := node.NewClient(c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w: outside of a cluster, give --nodes-file or --kubeconfig", err)
	}
	return node.NewKubernetes(client, log), nil
}

func printStatus(ctx context.Context, c Config, output string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Second)
	defer cancel()
	status, err := AskStatus(ctx, c.StateDir)
	if err != nil {
		return err
	}
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(status)
	}
	status.Print(out, time.Now())
	return nil
}

// cleanupPatience is how long another flatnetd may take to end.
const cleanupPatience = 10 * time.Second

func cleanup(ctx context.Context, c Config, out, errOut io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupPatience)
	defer cancel()
	removed, err := Cleanup(ctx, c, c.Logger(errOut))
	for _, what := range removed {
		fmt.Fprintln(out, "removed", what)
	}
	if len(removed) == 0 && err == nil {
		fmt.Fprintln(out, "nothing of flatnet's was there")
	}
	return err
}
