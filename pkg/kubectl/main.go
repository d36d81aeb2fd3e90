// Package kubectl is `kubectl flatnet`: what flatnetd says on each node of a cluster, for
// who looks at all of them at once. It asks as `kubectl exec` does, so that nothing has to
// be opened, and its user needs to be nobody on the nodes.
//
// It runs wherever kubectl does, so nothing in it needs Linux: what flatnetd says is read
// here from its JSON, of an agent of another version too.
package kubectl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Exit statuses.
const (
	exitFine    = 0
	exitWrong   = 1 // something is wrong with the network
	exitUnknown = 2 // it could not be found out, or the command line is wrong
)

const introduction = `kubectl flatnet looks at flatnet on all nodes of a cluster.

`

// command is one that kubectl flatnet knows.
type command struct {
	name, arguments, does string
	timeout               time.Duration // by default
	// lasting says that the command goes on until somebody ends it: --timeout is that of
	// what it does again and again.
	lasting bool
	// flags defines those that the command alone has, and returns what runs it.
	prepare func(set *flag.FlagSet, o *options) func(ctx context.Context, c *client, out, errOut io.Writer) (exit int, err error)
}

// commands are all of them. Nobody writes to it.
var commands = []command{statusCommand, whyCommand, flowsCommand, checkCommand, uiCommand, bugreportCommand}

// Main does what the arguments say and returns the exit status.
func Main(ctx context.Context, version string, arguments []string, out, errOut io.Writer) int {
	name := ""
	if len(arguments) > 0 {
		name, arguments = arguments[0], arguments[1:]
	}
	switch name {
	case "", "help", "-h", "--help":
		printUsage(errOut)
		if name == "" {
			return exitUnknown
		}
		return exitFine
	case "version":
		fmt.Fprintln(out, version)
		return exitFine
	}
	for _, c := range commands {
		if c.name == name {
			return c.main(ctx, version, arguments, out, errOut)
		}
	}
	fmt.Fprintf(errOut, "kubectl flatnet: unknown command %q: %s or version\n", name, strings.Join(names(), ", "))
	return exitUnknown
}

func (c command) main(ctx context.Context, version string, arguments []string, out, errOut io.Writer) int {
	errOut = &serialized{to: errOut}
	set := flag.NewFlagSet("kubectl flatnet "+c.name, flag.ContinueOnError)
	set.SetOutput(errOut)
	set.Usage = func() {
		fmt.Fprintf(errOut, "kubectl flatnet %s [flags]%s: %s\n\n", c.name, c.arguments, c.does)
		set.PrintDefaults()
	}
	o := &options{version: version}
	o.flags(set, c.timeout)
	run := c.prepare(set, o)
	var err error
	if o.arguments, err = parse(set, arguments); errors.Is(err, flag.ErrHelp) {
		return exitFine
	} else if err != nil {
		return exitUnknown
	}
	exit, err := c.run(ctx, o, run, out, errOut)
	if err != nil {
		fmt.Fprintln(errOut, "kubectl flatnet:", err)
		return exitUnknown
	}
	return exit
}

// serialized lets one goroutine at a time write: several say how far they are.
type serialized struct {
	mu sync.Mutex
	to io.Writer
}

func (s *serialized) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(p)
}

// parse reads flags, which may come after other arguments, as with kubectl.
func parse(set *flag.FlagSet, arguments []string) (others []string, err error) {
	for {
		if err := set.Parse(arguments); err != nil {
			return nil, err
		}
		if set.NArg() == 0 {
			return others, nil
		}
		others, arguments = append(others, set.Arg(0)), set.Args()[1:]
	}
}

func (c command) run(ctx context.Context, o *options, run func(context.Context, *client, io.Writer, io.Writer) (int, error), out, errOut io.Writer) (int, error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	if c.arguments == "" && len(o.arguments) > 0 {
		return 0, fmt.Errorf("unknown argument %q", o.arguments[0])
	}
	config, err := o.restConfig()
	if err != nil {
		return 0, err
	}
	api, err := newClient(config, o.version)
	if err != nil {
		return 0, err
	}
	interruptible, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { stop(errInterrupted) })() // whatever the signal calls itself
	ctx = interruptible
	if !c.lasting {
		limited, cancel := context.WithTimeoutCause(interruptible, o.timeout, errNoTime)
		defer cancel()
		ctx = limited
	}
	exit, err := run(ctx, api, out, errOut)
	return exit, o.overTime(ctx, err)
}

func names() (all []string) {
	for _, c := range commands {
		all = append(all, c.name)
	}
	return all
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, introduction)
	for _, c := range commands {
		fmt.Fprintf(w, "  kubectl flatnet %s [flags]%s\n%37s%s\n", c.name, c.arguments, "", c.does)
	}
	fmt.Fprintf(w, "  kubectl flatnet version\n\nkubectl flatnet COMMAND --help lists the flags of one.\n")
}
