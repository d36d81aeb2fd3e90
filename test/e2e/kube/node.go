package kube

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// Where things are on every node.
const (
	ContainerdSocket = "/run/containerd/containerd.sock"
	BinDir           = "/opt/cni/bin"
	ConfDir          = "/etc/cni/net.d"
	// ContainerdMetrics is where containerd answers on the node's loopback.
	ContainerdMetrics = "127.0.0.1:1338"
)

// PauseImage holds a pod's namespaces.
const PauseImage = "registry.k8s.io/pause:3.10.1"

// Machine returns all that a machine of the cluster consists of. dir is the
// machine's own directory, binaries the one with Kubernetes' programs, and
// runtime that with containerd's, if they are not those of the real machine.
func Machine(c plan.Cluster, m plan.Machine, s *Secrets, dir, binaries, runtime string) (machine.Spec, error) {
	spec := machine.Spec{Name: m.Name, Directory: dir, Disk: true, Files: map[string]string{}, Copies: map[string]string{}}
	if runtime != "" {
		spec.Links = map[string]string{}
		for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
			// Where kind has it, and before Debian's in PATH.
			spec.Links["/usr/local/bin/"+name] = filepath.Join(runtime, name)
		}
	}
	if c.Options.Node == "kind" {
		likeKind(&spec)
	}
	if m.ControlPlane {
		if err := controlPlane(&spec, c, s, binaries); err != nil {
			return spec, err
		}
	}
	return spec, node(&spec, c, m, s, binaries)
}

// CgroupRoot is the control group of a machine's pods in every hierarchy.
func CgroupRoot(name string) string { return "k8s-" + name }

// node adds containerd, kubelet and kube-proxy to a machine.
func node(spec *machine.Spec, c plan.Cluster, m plan.Machine, s *Secrets, binaries string) error {
	pair, err := s.Authority.Client("system:node:"+m.Name, "system:nodes")
	if err != nil {
		return err
	}
	proxy, err := s.Authority.Client("system:kube-proxy")
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		in("ca.crt"):                      string(s.Authority.Certificate),
		in("kubelet.conf"):                string(s.Authority.Kubeconfig(c.APIServer(), pair)),
		in("kube-proxy.conf"):             string(s.Authority.Kubeconfig(c.APIServer(), proxy)),
		"/etc/hostname":                   m.Name + "\n",
		"/etc/hosts":                      hosts(c),
		"/etc/resolv.conf":                "# There is no DNS server outside of the cluster.\n",
		"/etc/machine-id":                 fmt.Sprintf("%032x\n", []byte(m.Name)[:min(16, len(m.Name))]),
		"/etc/containerd/config.toml":     containerd,
		"/etc/kubernetes/kubelet.yaml":    kubelet(c, m),
		"/etc/kubernetes/kube-proxy.yaml": kubeProxy(c, m),
	} {
		spec.Files[path] = content
	}
	spec.Services = append(spec.Services,
		machine.Service{Name: "containerd", Args: []string{"containerd", "--config", "/etc/containerd/config.toml"}},
		machine.Service{Name: "kubelet", Args: []string{filepath.Join(binaries, "kubelet"),
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=" + in("kubelet.conf"),
			"--hostname-override=" + m.Name, "--node-ip=" + plan.Join(m.Hosts()),
			"--node-labels=topology.kubernetes.io/zone=" + c.Zone(m) + ",topology.kubernetes.io/region=flatnet",
		}},
	)
	if c.Options.Proxy != "none" {
		spec.Services = append(spec.Services, machine.Service{Name: "kube-proxy", Args: []string{
			filepath.Join(binaries, "kube-proxy"), "--config=/etc/kubernetes/kube-proxy.yaml"}})
	}
	return nil
}

// likeKind gives a machine what nodes of kind have and Debian's machines have not
// besides containerd 2: the settings of the network that kind's node image comes
// with (images/base/files/etc/sysctl.d in kind's source). The CNI plugins in
// kind's nodes are those of all machines here.
func likeKind(spec *machine.Spec) {
	spec.Sysctls = map[string]string{
		"ipv4/conf/all/rp_filter":      "1",
		"ipv4/conf/default/rp_filter":  "1",
		"ipv4/conf/all/route_localnet": "1",
		"ipv4/conf/all/arp_ignore":     "0",
	}
}

// hosts lets machines find each other by name.
func hosts(c plan.Cluster) string {
	var text strings.Builder
	text.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, m := range c.Machines {
		for _, address := range m.Hosts() {
			fmt.Fprintf(&text, "%s %s\n", address, m.Name)
		}
	}
	return text.String()
}

// containerd's configuration, for 1.6 and 2. The machine may withhold
// CAP_SYS_RESOURCE, so scores for the OOM killer are not lowered, and AppArmor.
const containerd = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "` + ContainerdSocket + `"
[metrics]
  address = "` + ContainerdMetrics + `"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PauseImage + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + BinDir + `"
    conf_dir = "` + ConfDir + `"
`

// kubelet's configuration. Nothing is evicted and no image collected: an image
// could not be pulled again. The OOM score stays, as with containerd.
func kubelet(c plan.Cluster, m plan.Machine) string {
	text := `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/kubernetes/ca.crt}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://` + ContainerdSocket + `
cgroupDriver: cgroupfs
cgroupRoot: /` + CgroupRoot(m.Name) + `
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
protectKernelDefaults: false
resolvConf: /etc/resolv.conf
clusterDomain: cluster.local
clusterDNS: [` + `"` + strings.ReplaceAll(plan.Join(c.DNS), ",", `", "`) + `"]
volumePluginDir: /var/lib/kubelet/volume-plugins
maxPods: 110
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
rotateCertificates: false
shutdownGracePeriod: 0s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
`
	if m.ControlPlane {
		text += "registerWithTaints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]\n"
	}
	return text
}

// kubeProxy's configuration. It leaves the machine's limit of tracked
// connections alone; timeouts are its own, because an upstream test looks.
func kubeProxy(c plan.Cluster, m plan.Machine) string {
	return `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ` + c.Options.Proxy + `
clusterCIDR: ` + plan.Join(c.Pods) + `
hostnameOverride: ` + m.Name + `
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
conntrack: {maxPerCore: 0, min: 0}
oomScoreAdj: 0
`
}
