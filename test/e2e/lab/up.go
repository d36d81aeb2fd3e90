package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/kube"
	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/manifests"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
	"github.com/flatnet-cni/flatnet/test/e2e/state"
	"github.com/flatnet-cni/flatnet/test/e2e/underlay"
	"github.com/flatnet-cni/flatnet/test/reference"
)

// Up starts a cluster with the programs that were built before, and returns it
// when all nodes are ready and the cluster's DNS server answers. Where
// something goes wrong, what was started is left to be looked at; [Down]
// removes it.
func Up(ctx context.Context, directory, repository string, options plan.Options, out io.Writer) (*Lab, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return nil, errors.New("starting a cluster needs root")
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, fmt.Errorf("making directory of the cluster: %w", err)
	}
	s, err := state.New(directory, options)
	if err != nil {
		return nil, err
	}
	l := &Lab{Directory: directory, Repository: repository, Out: out, begin: time.Now(), state: s, plan: plan.New(options)}
	steps := []func(context.Context) error{l.prepare, l.machines, l.network, l.applications}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return l, err
		}
		if err := step(ctx); err != nil {
			return l, err
		}
	}
	s.Ready = true
	return l, s.Save()
}

// prepare changes what of the real machine has to be different: each kubelet
// and container runtime watches files.
func (l *Lab) prepare(context.Context) error {
	if err := l.state.SetSysctl("/proc/sys/fs/inotify/max_user_instances", 1024); err != nil {
		return err
	}
	for _, m := range l.plan.Machines {
		l.state.Cgroups = append(l.state.Cgroups, kube.CgroupRoot(m.Name))
	}
	if err := l.state.Save(); err != nil {
		return err
	}
	for _, name := range l.state.Cgroups {
		if err := makeCgroup(name); err != nil {
			return err
		}
	}
	return nil
}

// machines starts the underlay and all machines.
func (l *Lab) machines(context.Context) error {
	o := l.plan.Options
	l.say("starting Kubernetes %s, control plane and %d workers on %d subnet(s): %s, kube-proxy %s", o.Kubernetes, o.Workers, o.Subnets, o.Family, o.Proxy)
	spec := machine.Spec{Name: Outside, Directory: l.machineDirectory(Outside)}
	// The router is also a host outside of the cluster, that says who talks to it.
	spec.Services = []machine.Service{{Name: "outside", Args: []string{
		filepath.Join(l.Binaries(), "agnhost"), "netexec", "--http-port=80", "--udp-port=80"}}}
	err := l.start(spec, nil, func(pid int) error { return underlay.Router(pid, l.plan.Subnets) })
	if err != nil {
		return err
	}
	secrets, err := kube.NewSecrets(l.plan)
	if err != nil {
		return err
	}
	plugins, err := reference.Plugins()
	if err != nil {
		return err
	}
	// The API server's port of this machine: nothing but this listener is there.
	listener, err := listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	for _, m := range l.plan.Machines {
		spec, err := kube.Machine(l.plan, m, secrets, l.machineDirectory(m.Name), l.Binaries(), l.runtime())
		if err != nil {
			return err
		}
		spec.Kept = []string{filepath.Join(l.Repository, "bin")} // the repository may be in /tmp
		// What nodes of kind have, but portmap: flatnet gives host ports without it, and a
		// node that has none shows that. Without loopback, containerd 1.6 starts no pod.
		for _, name := range []string{"host-local", "loopback", "ptp"} {
			spec.Copies[filepath.Join(kube.BinDir, name)] = filepath.Join(plugins, name)
		}
		if m.ControlPlane {
			spec.Forward = netip.AddrPortFrom(l.plan.API(), plan.APIPort).String()
		}
		err = l.start(spec, listener, func(pid int) error {
			router, err := l.PID(Outside)
			if err != nil {
				return err
			}
			return underlay.Connect(router, pid, m, l.plan.Subnets[m.Subnet])
		})
		if err != nil {
			return err
		}
	}
	for path, server := range map[string]string{
		l.Kubeconfig(): "https://" + listener.Addr().String(), l.InsideKubeconfig(): l.plan.APIServer(),
	} {
		if err := os.WriteFile(path, secrets.Authority.Kubeconfig(server, secrets.Admin), 0o600); err != nil {
			return fmt.Errorf("writing kubeconfig: %w", err)
		}
	}
	l.state.Kubeconfig = l.Kubeconfig()
	return l.state.Save()
}

// listen takes the port that API servers often have, or any other.
func listen() (*net.TCPListener, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: plan.APIPort})
	if errors.Is(err, syscall.EADDRINUSE) {
		listener, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	}
	if err != nil {
		return nil, fmt.Errorf("listening for users of the API: %w", err)
	}
	return listener, nil
}

// start starts one machine and remembers it; connect makes its network.
func (l *Lab) start(spec machine.Spec, listener *net.TCPListener, connect func(pid int) error) error {
	m, err := machine.Start(spec, listener, func(pid int) error { return l.state.Started(spec.Name, pid) })
	if err != nil {
		return err
	}
	if err := connect(m.PID); err != nil {
		return err
	}
	return m.Go()
}

// network installs what makes nodes ready.
func (l *Lab) network(ctx context.Context) error {
	archive, err := l.archive("network")
	if err != nil {
		return err
	}
	if err := l.each(func(m plan.Machine) error { return l.importImages(ctx, m.Name, archive) }); err != nil {
		return err
	}
	err = Until(ctx, 2*time.Minute, "the API server (see "+l.machineDirectory("control-plane")+"/log)", func() error {
		_, err := l.Kubectl("get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		return err
	}
	l.say("the API server answers")
	var nodes []string
	for _, m := range l.plan.Machines {
		nodes = append(nodes, "node/"+m.Name)
	}
	err = Until(ctx, 2*time.Minute, "all nodes to register (see "+l.Directory+"/machines/*/log/kubelet.log)", func() error {
		_, err := l.Kubectl(append([]string{"get", "-o", "name"}, nodes...)...)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := l.Kubectl("label", "--overwrite", nodes[0], "node-role.kubernetes.io/control-plane="); err != nil {
		return err
	}
	l.say("all %d nodes have registered", len(nodes))
	if l.plan.Options.CNI == "flatnet" {
		err = l.installFlatnet()
	} else {
		err = l.installReference(ctx)
	}
	if err != nil {
		return err
	}
	if _, err := l.Kubectl(append([]string{"wait", "--for=condition=Ready", "--timeout=2m"}, nodes...)...); err != nil {
		return err
	}
	l.say("all nodes are Ready")
	return nil
}

// Kustomization is the directory that flatnet is installed from.
func (l *Lab) Kustomization() (string, error) {
	directory := filepath.Join(l.Repository, "deploy", "base")
	if fabric := l.plan.Options.Fabric; fabric != "auto" {
		directory = filepath.Join(l.Repository, "deploy", "overlays", fabric)
	}
	settings := map[string]string{}
	var components []string
	if l.plan.Options.Datapath != "auto" {
		settings["FLATNETD_DATAPATH"] = l.plan.Options.Datapath
	}
	if l.plan.Options.Proxy == "none" {
		// Nothing serves the API server's ClusterIP before the agent does.
		settings["KUBERNETES_SERVICE_HOST"] = l.plan.API().String()
		settings["KUBERNETES_SERVICE_PORT"] = fmt.Sprint(plan.APIPort)
		components = append(components, "services")
	}
	if len(settings) == 0 {
		return directory, nil
	}
	return l.kustomize("flatnet", directory, components, func(base string, components []string) string {
		return manifests.Over(base, components, settings)
	})
}

// WithPool is the directory of a kustomization over that of [Lab.Kustomization]: flatnet
// gives addresses of a pool to Services, and answers for them at the machines' interfaces.
func (l *Lab) WithPool(name string, ranges []string) (string, error) {
	directory, err := l.Kustomization()
	if err != nil {
		return "", err
	}
	return l.kustomize("flatnet-loadbalancer", directory, []string{"loadbalancer"}, func(base string, components []string) string {
		return manifests.WithPool(base, components[0], name, ranges)
	})
}

// kustomize writes a kustomization over another one with components of deploy, which it
// gets as paths from where it is, and returns its directory.
func (l *Lab) kustomize(name, over string, components []string, write func(base string, components []string) string) (string, error) {
	here := filepath.Join(l.Directory, name)
	if err := os.MkdirAll(here, 0o755); err != nil {
		return "", err
	}
	base, err := filepath.Rel(here, over)
	if err != nil {
		return "", err
	}
	var paths []string
	for _, component := range components {
		path, err := filepath.Rel(here, filepath.Join(l.Repository, "deploy", "components", component))
		if err != nil {
			return "", err
		}
		paths = append(paths, path)
	}
	return here, os.WriteFile(filepath.Join(here, "kustomization.yaml"), []byte(write(base, paths)), 0o644)
}

func (l *Lab) installFlatnet() error {
	directory, err := l.Kustomization()
	if err != nil {
		return err
	}
	l.say("kubectl apply -k %s", directory)
	if _, err := l.Kubectl("apply", "-k", directory); err != nil {
		return err
	}
	if _, err := l.Kubectl("-n", "flatnet", "rollout", "status", "daemonset/flatnetd", "--timeout=2m"); err != nil {
		return err
	}
	l.say("flatnet is ready on all nodes")
	return nil
}

// applications gives every node the other images, and starts the cluster's DNS
// server.
func (l *Lab) applications(ctx context.Context) error {
	archive, err := l.archive("applications")
	if err != nil {
		return err
	}
	if err := l.each(func(m plan.Machine) error { return l.importImages(ctx, m.Name, archive) }); err != nil {
		return err
	}
	l.say("images are on all nodes")
	dns, err := manifests.CoreDNS(l.plan)
	if err != nil {
		return err
	}
	if _, err := l.KubectlInput(dns, "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := l.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=2m"); err != nil {
		return err
	}
	l.say("the cluster's DNS server is ready")
	return nil
}

// each calls f for all machines side by side.
func (l *Lab) each(f func(plan.Machine) error) error {
	errs := make([]error, len(l.plan.Machines))
	var wait sync.WaitGroup
	for i, m := range l.plan.Machines {
		wait.Go(func() { errs[i] = f(m) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// importImages gives a machine the images of an archive.
func (l *Lab) importImages(ctx context.Context, name, archive string) error {
	err := Until(ctx, time.Minute, "containerd on "+name, func() error {
		_, err := l.Output(name, "ctr", "version")
		return err
	})
	if err != nil {
		return err
	}
	text, err := l.Output(name, "ctr", "-n", "k8s.io", "images", "import", archive)
	if err != nil {
		return fmt.Errorf("importing images: %w\n%s", err, strings.TrimSpace(text))
	}
	return nil
}
