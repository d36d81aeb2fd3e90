package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/flatnet-cni/flatnet/test/e2e/lab"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func upCommand(ctx context.Context, args []string) error {
	var o plan.Options
	flags := flag.NewFlagSet("cluster up", flag.ExitOnError)
	flags.IntVar(&o.Workers, "workers", 3, "number of worker `nodes`")
	flags.StringVar(&o.Family, "family", "dual", "dual, ipv4 or ipv6: of nodes, pods and Services")
	flags.StringVar(&o.Proxy, "proxy", "nftables", "kube-proxy's mode: nftables, iptables, or none, where flatnet balances Services")
	flags.IntVar(&o.Subnets, "subnets", 1, "`number` of networks that the nodes are on, 1 or 2; a router joins two")
	flags.StringVar(&o.CNI, "cni", "flatnet", "flatnet, or reference: ptp, host-local and static routes")
	flags.StringVar(&o.Fabric, "fabric", "auto", "flatnet's fabric: auto, direct or vxlan")
	flags.StringVar(&o.Datapath, "datapath", "auto", "flatnet's data path: auto, ebpf or kernel")
	flags.StringVar(&o.Node, "node", "debian", "what nodes are like: debian (containerd of Debian), or kind (containerd 2, and the settings of kind's nodes)")
	flags.StringVar(&o.Kubernetes, "kubernetes", "", "`release` of Kubernetes, as 1.35; the newest if not given")
	flags.StringVar(&o.Containerd, "containerd", "", "`release` of containerd, as 1.7; if not given, that of the machine, and with -node kind "+programs.KindContainerd)
	flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %s", flags.Arg(0))
	}
	if err := o.Validate(); err != nil {
		return err
	}
	// Before minutes are spent on building.
	if _, err := os.Stat(filepath.Join(lab.Directory, "state.json")); err == nil {
		return fmt.Errorf("there is a cluster already: `make cluster-down` removes it")
	}
	root, err := reference.Repository()
	if err != nil {
		return err
	}
	for _, name := range []string{"flatnet", "flatnet-ipam", "flatnetd", "flatnet-bgp", "kubectl-flatnet"} {
		if _, err := os.Stat(filepath.Join(root, "bin", name)); err != nil {
			return fmt.Errorf("bin/%s is missing: run `make build` first", name)
		}
	}
	if o.Node == "kind" && o.Containerd == "" {
		o.Containerd = programs.KindContainerd
	}
	k, err := programs.FindKubernetes(source(root), o.Kubernetes)
	if err != nil {
		return err
	}
	o.Kubernetes = k.Minor
	var runtime []programs.Program
	if o.Containerd != "" {
		if runtime, err = programs.Containerd(source(root), o.Containerd); err != nil {
			return err
		}
	}
	if err := build(ctx, root, k.Minor, k.Cluster()); err != nil {
		return err
	}
	if o.Containerd != "" {
		if err := builder(root, "containerd-"+o.Containerd).Build(ctx, runtime); err != nil {
			return err
		}
	}
	l, err := lab.Up(ctx, lab.Directory, root, o, os.Stdout)
	if err != nil {
		if l != nil {
			fmt.Fprintf(os.Stderr, "cluster: logs are in %s/machines/*/log; `make cluster-down` removes everything\n", lab.Directory)
		}
		return err
	}
	fmt.Printf(`
The cluster runs. To use it:

    export KUBECONFIG=%s PATH=%s:$PATH
    kubectl get nodes,pods -A -o wide

    bin/e2e/cluster exec worker1 ip route   # a command on a node; ctr, nft and others are there
    make e2e                                # tests
    make cluster-down                       # remove it
`, l.Kubeconfig(), l.Binaries())
	return nil
}

// build installs and builds what is missing of a release of Kubernetes.
func build(ctx context.Context, root, minor string, wanted []programs.Program) error {
	if err := programs.Install(ctx, os.Stdout); err != nil {
		return err
	}
	if err := builder(root, minor).Build(ctx, wanted); err != nil {
		return err
	}
	if err := use(root, minor); err != nil {
		return err
	}
	_, err := reference.Plugins()
	return err
}

func source(root string) string { return filepath.Join(root, "test", "e2e") }

// builder builds into a directory of the name.
func builder(root, name string) programs.Builder {
	return programs.Builder{Source: source(root), Directory: filepath.Join(root, "bin", "e2e", name), Out: os.Stdout}
}

// use makes bin/e2e/bin, for people's PATH, the programs of a release.
func use(root, minor string) error {
	link := filepath.Join(root, "bin", "e2e", "bin")
	if old, err := os.Readlink(link); err == nil && old == minor {
		return nil
	}
	// It was once the directory with all programs.
	if err := os.RemoveAll(link); err != nil {
		return fmt.Errorf("replacing %s: %w", link, err)
	}
	return os.Symlink(minor, link)
}

func buildCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cluster build", flag.ExitOnError)
	tests := flags.Bool("tests", false, "also Kubernetes' own tests")
	release := flags.String("kubernetes", "", "`release` of Kubernetes, as 1.35; the newest if not given")
	flags.Parse(args)
	root, err := reference.Repository()
	if err != nil {
		return err
	}
	k, err := programs.FindKubernetes(source(root), *release)
	if err != nil {
		return err
	}
	wanted := k.Cluster()
	if *tests {
		wanted = append(wanted, k.Tests()...)
	}
	if flags.NArg() > 0 {
		if wanted, err = programs.Named(wanted, flags.Args()); err != nil {
			return err
		}
		if err := builder(root, k.Minor).Build(ctx, wanted); err != nil {
			return err
		}
		return use(root, k.Minor)
	}
	return build(ctx, root, k.Minor, wanted)
}

func downCommand(context.Context, []string) error { return lab.Down(lab.Directory, os.Stdout) }

func open(out io.Writer) (*lab.Lab, error) {
	root, err := reference.Repository()
	if err != nil {
		return nil, err
	}
	l, err := lab.Open(lab.Directory, root, out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no cluster: `make cluster` starts one")
	}
	return l, err
}

func statusCommand([]string) error {
	l, err := open(os.Stdout)
	if err != nil {
		return err
	}
	for _, p := range l.State().Processes {
		status := "runs"
		if !l.State().Alive(p) {
			status = "has ended"
		}
		fmt.Printf("%-14s process %d %s\n", p.Name, p.PID, status)
	}
	return nil
}

func execCommand(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: cluster exec NODE [COMMAND]")
	}
	l, err := open(os.Stdout)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		args = append(args, "bash")
	}
	cmd, err := l.Command(args[0], args[1:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	return err
}

func orderCommand(verb string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: cluster %s NODE SERVICE", verb)
	}
	l, err := open(os.Stdout)
	if err != nil {
		return err
	}
	return l.Order(args[0], verb, args[1])
}

func rebootCommand(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: cluster reboot NODE")
	}
	l, err := open(os.Stdout)
	if err != nil {
		return err
	}
	return l.Reboot(args[0])
}
