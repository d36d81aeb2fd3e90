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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/node"
	"github.com/flatnet-cni/flatnet/pkg/page"
)

// Exit statuses of flatnetd.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `flatnetd joins a Kubernetes node's pods to those of the other nodes.

  flatnetd [flags]                   run the agent
  flatnetd status [-o json [--brief]] [flags]
                                     ask the running agent how the node is joined; --brief
                                     counts peers, and names those that are not as most are
  flatnetd status services [-o json] [flags]
                                     ask it who serves what Service
  flatnetd status announcements [-o json] [flags]
                                     ask it which addresses Services of type LoadBalancer have,
                                     and which node answers for each
  flatnetd status policies [-o json] [flags]
                                     ask it what policies come to for each pod of the node
  flatnetd status bgp [-o json] [flags]
                                     ask it about routers: sessions, what is announced and learned
  flatnetd status pods [-o json] [flags]
                                     what is attached on this node, and what is wrong with it;
                                     nobody is asked: flatnetd may be down
  flatnetd policy explain [-o json] [flags] FROM TO PORT[/PROTOCOL]
                                     ask it what decides about a connection; FROM and TO are
                                     addresses, or pods as namespace/name, PORT is a number, or a
                                     name that a port of the pod TO has
  flatnetd page [--port PORT] [flags]
                                     serve on 127.0.0.1 what the agent says, as a page for a
                                     browser: this node, and its peers as it sees them
  flatnetd flows [-o json] [--pod namespace/name] [--address IP] [--limit N] [flags]
                                     ask it which flows take the fast path, with pods' names,
                                     packets and bytes of both directions; the largest first
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
	output, about, brief, wanted := "", "", false, FlowsWanted{}
	if command == "flows" {
		set.StringVar(&wanted.Pod, "pod", "", "only the flows of this `pod`, namespace/name")
		set.StringVar(&wanted.Addresses, "address", "", "only the flows of this `address`, or of several, separated by commas")
		set.IntVar(&wanted.Limit, "limit", 1000, "no more flows than these; 0: all")
	}
	if command == "status" || command == "policy" || command == "flows" {
		set.StringVar(&output, "o", "", "`json` for machines")
	}
	var port *int
	if command == "page" {
		port = page.PortFlag(set)
	}
	if command == "status" {
		set.BoolVar(&brief, "brief", false, "with -o json, count peers instead of listing them, as a big cluster needs it")
	}
	err := set.Parse(arguments)
	if command == "status" && err == nil && slices.Contains([]string{"services", "announcements", "policies", "pods", "bgp"}, set.Arg(0)) {
		about = set.Arg(0)
		err = set.Parse(set.Args()[1:])
	}
	explaining := command == "policy" && err == nil && set.Arg(0) == "explain"
	if explaining {
		err = set.Parse(set.Args()[1:])
	}
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	c, err := config()
	c.Version = version
	if err == nil && explaining && set.NArg() != 3 {
		err = errors.New("policy explain needs three arguments: FROM TO PORT[/PROTOCOL]")
	}
	if err == nil && command == "policy" && !explaining {
		err = errors.New("policy knows one thing to do: flatnetd policy explain FROM TO PORT[/PROTOCOL]")
	}
	if err == nil && !explaining && set.NArg() > 0 {
		err = fmt.Errorf("unknown argument %q", set.Arg(0))
	}
	if err == nil && output != "" && output != "json" {
		err = fmt.Errorf("-o %q is not json", output)
	}
	if err == nil && brief && (output == "" || about != "") {
		err = errors.New("--brief is for `flatnetd status -o json` only")
	}
	if err == nil {
		err = wanted.check()
	}
	if brief {
		about = aboutBrief
	}
	if err != nil {
		fmt.Fprintln(errOut, "flatnetd:", err)
		return exitUsage
	}
	switch command {
	case "":
		err = serve(ctx, c, errOut)
	case "status":
		err = printStatus(ctx, c, about, output, out)
	case "policy":
		err = explain(ctx, c, set.Args(), output, out)
	case "page":
		err = servePage(ctx, c, *port, out)
	case "flows":
		err = printFlows(ctx, c, wanted, output, out)
	case "cleanup":
		err = cleanup(ctx, c, out, errOut)
	case "version":
		fmt.Fprintln(out, version)
	default:
		fmt.Fprintf(errOut, "flatnetd: unknown command %q: status, policy, flows, page, cleanup or version, or none\n", command)
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
	var client *apiwatch.Client
	if c.NodesFile == "" || c.Services || c.LoadBalancerConfig != "" || c.Policies && c.PoliciesDir == "" || c.BGPConfig != "" && c.Kubeconfig != "" {
		var err error
		if client, err = apiwatch.NewClient(c.Kubeconfig); err != nil {
			return fmt.Errorf("%w: %s", err, c.withoutAPI())
		}
		if c.Services && c.ServicesMetrics != "" {
			client.Requests = apiwatch.CountRequests()
		}
	}
	a, err := New(c, client, log)
	if err != nil && strings.Contains(err.Error(), syscall.EPERM.Error()) {
		return fmt.Errorf("%w: flatnetd needs CAP_NET_ADMIN in the node's network namespace", err)
	}
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// withoutAPI says what to do where there is no Kubernetes API.
func (c Config) withoutAPI() string {
	if c.NodesFile == "" {
		return "outside of a cluster, give --nodes-file or --kubeconfig"
	}
	if c.LoadBalancerConfig != "" && !c.Services {
		return "Services come from the Kubernetes API: outside of a cluster, give --kubeconfig, or leave --loadbalancer-config out"
	}
	if !c.Services {
		return "policies come from the Kubernetes API: outside of a cluster, give --policies-dir or --kubeconfig"
	}
	return "Services come from the Kubernetes API: outside of a cluster, give --kubeconfig, or leave --services out"
}

// sourceName is where the nodes come from, in a word.
func (c Config) sourceName() string {
	if c.NodesFile != "" {
		return c.NodesFile
	}
	return "kubernetes"
}

// nodes returns where the nodes come from.
func (c Config) nodes(client *apiwatch.Client, log *slog.Logger) node.Source {
	if c.NodesFile != "" {
		return node.NewFile(c.NodesFile, log)
	}
	return node.NewKubernetes(client, c.NodeName, log)
}

// printStatus prints the status of the node, or about what else is asked.
func printStatus(ctx context.Context, c Config, about, output string, out io.Writer) error {
	if about == "pods" {
		return printPods(c, output, out)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Second)
	defer cancel()
	if about == "policies" && output == "" {
		s, err := AskPolicies(ctx, c.StateDir)
		if err == nil {
			s.Print(out)
		}
		return err
	}
	if about == "announcements" && output == "" {
		s, err := AskAnnouncements(ctx, c.StateDir)
		if err == nil {
			s.Print(out, time.Now())
		}
		return err
	}
	if about == "services" && output == "" {
		s, err := AskServices(ctx, c.StateDir)
		if err == nil {
			s.Print(out)
		}
		return err
	}
	if about == "bgp" && output == "" {
		s, err := AskBGP(ctx, c.StateDir)
		if err == nil {
			s.Print(out, time.Now())
		}
		return err
	}
	question := "/status"
	switch {
	case about != "":
		question += "/" + about
	case output == "":
		question = statusForPeople
	}
	raw, err := askAgent(ctx, c.StateDir, question)
	if err == nil {
		_, err = out.Write(raw)
	}
	return err
}

// explain prints what decides about a connection.
func explain(ctx context.Context, c Config, arguments []string, output string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Second)
	defer cancel()
	e, err := AskToExplain(ctx, c.StateDir, arguments[0], arguments[1], arguments[2])
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(out, e)
	}
	printExplanation(out, e)
	return nil
}

// printPods prints what is attached.
func printPods(c Config, output string, out io.Writer) error {
	all, err := ListAttachedPods(c.StateDir, c.SysctlDir)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(out, all)
	}
	if len(all.Pods) == 0 {
		_, err = fmt.Fprintln(out, "no pod is attached, by the records below", c.StateDir)
		return err
	}
	all.Print(out, time.Now())
	return nil
}

func printJSON(out io.Writer, document any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}

func cleanup(ctx context.Context, c Config, out, errOut io.Writer) error {
	removed, err := Cleanup(ctx, c, c.Logger(errOut))
	for _, what := range removed {
		fmt.Fprintln(out, "removed", what)
	}
	if len(removed) == 0 && err == nil {
		fmt.Fprintln(out, "nothing of flatnet's was there")
	}
	return err
}
