package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/e2e/machine"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

func spec(t *testing.T, o plan.Options, index int) machine.Spec {
	t.Helper()
	c := plan.New(o)
	s, err := NewSecrets(c)
	if err != nil {
		t.Fatal(err)
	}
	runtime := ""
	if o.Containerd != "" {
		runtime = "/runtime"
	}
	spec, err := Machine(c, c.Machines[index], s, "/machine", "/bin", runtime)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// text of the services: a line each, and of the files that are not keys.
func text(s machine.Spec) string {
	var b strings.Builder
	for _, service := range s.Services {
		fmt.Fprintln(&b, strings.Join(service.Args, " "))
	}
	for _, path := range []string{"/etc/hosts", "/etc/kubernetes/kubelet.yaml", "/etc/kubernetes/kube-proxy.yaml"} {
		b.WriteString(s.Files[path])
	}
	return b.String()
}

func TestMachines(t *testing.T) {
	dual := plan.Options{Workers: 1, Family: "dual", Proxy: "nftables", Subnets: 1, CNI: "flatnet", Fabric: "auto"}
	six, without := dual, dual
	six.Family, without.Proxy = "ipv6", "none"
	for _, test := range []struct {
		name     string
		options  plan.Options
		machine  int
		services string
		has, not []string
	}{
		{"control plane", dual, 0, "etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy", []string{
			"--advertise-address=172.30.0.1 --bind-address=:: ", "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
			"--cluster-cidr=10.244.0.0/16,fd00:244::/48", "--node-cidr-mask-size-ipv4=24 --node-cidr-mask-size-ipv6=64",
			"registerWithTaints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]", "cgroupRoot: /k8s-control-plane",
		}, nil},
		{"worker", dual, 1, "containerd kubelet kube-proxy", []string{
			"--node-ip=172.30.0.2,fd00:30::2", `clusterDNS: ["10.96.0.10", "fd00:96::a"]`, "cgroupRoot: /k8s-worker1", "mode: nftables",
			"172.30.0.1 control-plane\nfd00:30::1 control-plane\n", "clusterCIDR: 10.244.0.0/16,fd00:244::/48",
		}, []string{"registerWithTaints", "kube-apiserver"}},
		{"IPv6 alone", six, 0, "etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy", []string{
			"--advertise-address=fd00:30::1 ", "--node-ip=fd00:30::1 ", "--node-cidr-mask-size-ipv6=64",
		}, []string{"--node-cidr-mask-size-ipv4", "172.30", "10.96", "10.244"}},
		{"no kube-proxy", without, 1, "containerd kubelet", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t, test.options, test.machine)
			var names []string
			for _, service := range s.Services {
				names = append(names, service.Name)
			}
			if got := strings.Join(names, " "); got != test.services {
				t.Errorf("services %s, want %s", got, test.services)
			}
			all := text(s)
			for _, want := range test.has {
				if !strings.Contains(all, want) {
					t.Errorf("lacks %q:\n%s", want, all)
				}
			}
			for _, not := range test.not {
				if strings.Contains(all, not) {
					t.Errorf("has %q:\n%s", not, all)
				}
			}
		})
	}
}

func TestNodesLikeThoseOfKind(t *testing.T) {
	o := plan.Options{Workers: 1, Family: "dual", Proxy: "iptables", Subnets: 1, CNI: "flatnet", Fabric: "auto", Node: "kind", Containerd: "2.3"}
	s := spec(t, o, 1)
	var lines []string
	for path, target := range s.Links {
		lines = append(lines, path+" -> "+target)
	}
	for name, value := range s.Sysctls {
		lines = append(lines, name+" = "+value)
	}
	slices.Sort(lines)
	const want = `/usr/local/bin/containerd -> /runtime/containerd
/usr/local/bin/containerd-shim-runc-v2 -> /runtime/containerd-shim-runc-v2
/usr/local/bin/ctr -> /runtime/ctr
ipv4/conf/all/arp_ignore = 0
ipv4/conf/all/route_localnet = 1
ipv4/conf/all/rp_filter = 1
ipv4/conf/default/rp_filter = 1`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("nodes have\n%s\nwant\n%s", got, want)
	}
	o.Node, o.Containerd = "debian", ""
	if s := spec(t, o, 1); len(s.Links)+len(s.Sysctls) > 0 {
		t.Errorf("Debian's nodes have links %v and sysctls %v", s.Links, s.Sysctls)
	}
}

// A worker has no key but its own two.
func TestWorkersKnowNoSecretsOfTheCluster(t *testing.T) {
	s := spec(t, plan.Options{Workers: 1, Family: "dual", Proxy: "nftables", Subnets: 1}, 1)
	var keys []string
	for path, content := range s.Files {
		if strings.Contains(content, "PRIVATE KEY") || strings.Contains(content, "client-key-data") {
			keys = append(keys, path)
		}
	}
	slices.Sort(keys)
	if got := strings.Join(keys, " "); got != "/etc/kubernetes/kube-proxy.conf /etc/kubernetes/kubelet.conf" {
		t.Errorf("keys in %s", got)
	}
}
