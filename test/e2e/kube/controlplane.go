package kube

import (
	"path/filepath"
	"strconv"

	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// directory is where Kubernetes' files are on a machine, as kubeadm has it.
const directory = "/etc/kubernetes"

func in(name string) string { return filepath.Join(directory, name) }

// controlPlane adds etcd, API server, controllers and scheduler to a machine.
// binaries is the directory with Kubernetes' programs.
func controlPlane(spec *machine.Spec, c plan.Cluster, s *Secrets, binaries string) error {
	files := map[string]string{
		in("ca.crt"): string(s.Authority.Certificate), in("ca.key"): string(s.Authority.Key),
		in("front-proxy-ca.crt"): string(s.FrontProxy.Certificate),
		in("apiserver.crt"):      string(s.Server.Certificate), in("apiserver.key"): string(s.Server.Key),
		in("kubelet-client.crt"): string(s.Kubelet.Certificate), in("kubelet-client.key"): string(s.Kubelet.Key),
		in("front-proxy.crt"): string(s.Aggregator.Certificate), in("front-proxy.key"): string(s.Aggregator.Key),
		in("sa.key"): string(s.Private), in("sa.pub"): string(s.Public),
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		pair, err := s.Authority.Client("system:" + name)
		if err != nil {
			return err
		}
		files[in(name+".conf")] = string(s.Authority.Kubeconfig(c.APIServer(), pair))
	}
	for path, content := range files {
		spec.Files[path] = content
	}
	bind := "0.0.0.0"
	if c.Options.Family != "ipv4" {
		bind = "::"
	}
	apiserver := []string{filepath.Join(binaries, "kube-apiserver"),
		"--advertise-address=" + c.API().String(),
		"--bind-address=" + bind,
		"--secure-port=" + strconv.Itoa(plan.APIPort),
		"--etcd-servers=http://127.0.0.1:2379",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + plan.Join(c.Services),
		"--client-ca-file=" + in("ca.crt"),
		"--tls-cert-file=" + in("apiserver.crt"), "--tls-private-key-file=" + in("apiserver.key"),
		"--kubelet-client-certificate=" + in("kubelet-client.crt"), "--kubelet-client-key=" + in("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + in("sa.pub"), "--service-account-signing-key-file=" + in("sa.key"),
		"--requestheader-client-ca-file=" + in("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + in("front-proxy.crt"), "--proxy-client-key-file=" + in("front-proxy.key"),
		"--profiling=false",
	}
	manager := []string{filepath.Join(binaries, "kube-controller-manager"),
		"--kubeconfig=" + in("kube-controller-manager.conf"),
		"--authentication-kubeconfig=" + in("kube-controller-manager.conf"),
		"--authorization-kubeconfig=" + in("kube-controller-manager.conf"),
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + plan.Join(c.Pods),
		"--service-cluster-ip-range=" + plan.Join(c.Services),
		"--root-ca-file=" + in("ca.crt"),
		"--client-ca-file=" + in("ca.crt"),
		"--service-account-private-key-file=" + in("sa.key"),
		"--cluster-signing-cert-file=" + in("ca.crt"), "--cluster-signing-key-file=" + in("ca.key"),
		"--use-service-account-credentials=true",
		"--controllers=*,bootstrapsigner,tokencleaner",
		"--leader-elect=false",
		// It once held itself back for two minutes at its start, for its default of
		// 20 requests a second.
		"--kube-api-qps=200", "--kube-api-burst=400",
		"--profiling=false",
	}
	for _, network := range c.Pods {
		if network.Addr().Is4() {
			manager = append(manager, "--node-cidr-mask-size-ipv4=24")
		} else {
			manager = append(manager, "--node-cidr-mask-size-ipv6=64")
		}
	}
	spec.Services = append(spec.Services,
		machine.Service{Name: "etcd", Args: []string{"etcd", "--name=control-plane", "--data-dir=/var/lib/etcd/data",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=control-plane=http://127.0.0.1:2380", "--log-level=warn", "--logger=zap"}},
		machine.Service{Name: "kube-apiserver", Args: apiserver},
		machine.Service{Name: "kube-controller-manager", Args: manager},
		machine.Service{Name: "kube-scheduler", Args: []string{filepath.Join(binaries, "kube-scheduler"),
			"--kubeconfig=" + in("kube-scheduler.conf"), "--authentication-kubeconfig=" + in("kube-scheduler.conf"),
			"--authorization-kubeconfig=" + in("kube-scheduler.conf"), "--leader-elect=false", "--profiling=false"}},
	)
	return nil
}
