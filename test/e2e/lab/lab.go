// Package lab starts clusters on this machine and removes them: it does what
// package plan and package kube say.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
	"github.com/flatnet-cni/flatnet/test/e2e/state"
	"github.com/flatnet-cni/flatnet/test/e2e/underlay"
)

// Directory is where a cluster keeps all it has. Not below /run or /tmp, which
// its machines have for themselves, and on a real disk.
const Directory = "/var/tmp/flatnet-cluster"

// Outside is the machine that has the bridges: the router, and a host outside of the cluster.
const Outside = "underlay"

// Lab is a place for a cluster.
type Lab struct {
	Directory  string
	Repository string
	Out        io.Writer // progress

	begin time.Time
	state *state.State
	plan  plan.Cluster
}

// Open returns the cluster that is there; errors.Is fs.ErrNotExist where there
// is none.
func Open(directory, repository string, out io.Writer) (*Lab, error) {
	s, err := state.Load(directory)
	if err != nil {
		return nil, err
	}
	return &Lab{Directory: directory, Repository: repository, Out: out, state: s, plan: plan.New(s.Options), begin: time.Now()}, nil
}

// Plan is what the cluster consists of.
func (l *Lab) Plan() plan.Cluster { return l.plan }

// State is what there is of it.
func (l *Lab) State() *state.State { return l.state }

// Binaries is the directory with Kubernetes' programs.
func (l *Lab) Binaries() string {
	return filepath.Join(l.Repository, "bin", "e2e", l.plan.Options.Kubernetes)
}

// runtime is the directory with the container runtime's programs; "" for the machine's.
func (l *Lab) runtime() string {
	if release := l.plan.Options.Containerd; release != "" {
		return filepath.Join(l.Repository, "bin", "e2e", "containerd-"+release)
	}
	return ""
}

// Kubeconfig is the administrator's access, for programs outside of the cluster.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.Directory, "kubeconfig") }

// InsideKubeconfig is the same, for programs on a machine of the cluster.
func (l *Lab) InsideKubeconfig() string { return filepath.Join(l.Directory, "kubeconfig.inside") }

func (l *Lab) say(format string, args ...any) {
	fmt.Fprintf(l.Out, "%6.1f s  %s\n", time.Since(l.begin).Seconds(), fmt.Sprintf(format, args...))
}

// machineDirectory is what a machine of a name has for itself.
func (l *Lab) machineDirectory(name string) string {
	return filepath.Join(l.Directory, "machines", name)
}

// PID of a machine's first process.
func (l *Lab) PID(name string) (int, error) {
	p, known := l.state.Process(name)
	if !known {
		return 0, fmt.Errorf("there is no machine %s", name)
	}
	if !l.state.Alive(p) {
		return 0, fmt.Errorf("machine %s does not run", name)
	}
	return p.PID, nil
}

// Command prepares a program to run on a machine.
func (l *Lab) Command(name string, args ...string) (*exec.Cmd, error) {
	pid, err := l.PID(name)
	if err != nil {
		return nil, err
	}
	return machine.Command(pid, args...), nil
}

// Output runs a program on a machine and returns what it printed on standard
// output; the error holds what it printed on standard error.
func (l *Lab) Output(name string, args ...string) (string, error) {
	cmd, err := l.Command(name, args...)
	if err != nil {
		return "", err
	}
	return output(cmd, name+": "+strings.Join(args, " "))
}

// Order starts, stops or restarts a service of a machine.
func (l *Lab) Order(name, verb, service string) error {
	return machine.Order(l.machineDirectory(name), verb, service)
}

// Reboot ends all that runs on a worker, removes its interface, and starts it
// anew with the disk that it had: /run is empty.
func (l *Lab) Reboot(name string) error {
	for _, m := range l.plan.Machines {
		if m.Name != name {
			continue
		}
		if m.ControlPlane {
			return errors.New("the control plane cannot be rebooted: whoever uses the cluster is connected to it")
		}
		if err := l.kill(name); err != nil {
			return err
		}
		// The kubelet would ask after each container of the boot before.
		if err := errors.Join(removeCgroup(kube.CgroupRoot(name)), makeCgroup(kube.CgroupRoot(name))); err != nil {
			return err
		}
		spec, err := machine.Load(l.machineDirectory(name))
		if err != nil {
			return err
		}
		return l.boot(spec, m)
	}
	return fmt.Errorf("there is no machine %s", name)
}

// boot starts a machine and connects it.
func (l *Lab) boot(spec machine.Spec, m plan.Machine) error {
	router, err := l.PID(Outside)
	if err != nil {
		return err
	}
	return l.start(spec, nil, func(pid int) error {
		return underlay.Connect(router, pid, m, l.plan.Subnets[m.Subnet])
	})
}

// kill ends a machine and waits for its end, and with it that of all that runs
// on it.
func (l *Lab) kill(name string) error {
	p, known := l.state.Process(name)
	if !known || !l.state.Alive(p) {
		return nil
	}
	// It may end in this moment, and its PID cannot be another's so soon.
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending machine %s (process %d): %w", name, p.PID, err)
	}
	return Until(context.Background(), 30*time.Second, "the end of machine "+name, func() error {
		if l.state.Alive(p) {
			return fmt.Errorf("process %d is still there", p.PID)
		}
		return nil
	})
}

// output runs cmd, whose error is to say what it was. It ends with this
// program, however that ends: the kernel looks at the thread, which has to live
// as long.
func output(cmd *exec.Cmd, what string) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Kubectl runs kubectl as the administrator, and returns what it prints.
func (l *Lab) Kubectl(args ...string) (string, error) { return l.KubectlInput("", args...) }

// KubectlInput is Kubectl with a standard input.
func (l *Lab) KubectlInput(input string, args ...string) (string, error) {
	return l.client("kubectl", input, args)
}

// Helm runs helm as the administrator. It has to be built before.
func (l *Lab) Helm(args ...string) (string, error) { return l.client("helm", "", args) }

// client runs a program that talks to the API. What it keeps is kept in the lab's
// directory, and kubectl finds flatnet's own plugin in bin.
func (l *Lab) client(program, input string, args []string) (string, error) {
	cmd := exec.Command(filepath.Join(l.Binaries(), program), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig(), "PATH="+filepath.Join(l.Repository, "bin")+":"+os.Getenv("PATH"))
	for _, kept := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+kept+"_HOME="+filepath.Join(l.Directory, "helm", strings.ToLower(kept)))
	}
	cmd.Stdin = strings.NewReader(input)
	return output(cmd, program+" "+strings.Join(args, " "))
}
