// Package agent is flatnetd: it learns who the nodes are, joins its own node to
// them, masquerades what leaves the cluster, keeps the host's settings,
// installs the CNI plugin and collects what pods left behind.
//
// One goroutine does all the work, so there is nothing to lock: sources of news
// only say that there is some. See [Agent.Run].
package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/fabric"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Config is what flatnetd's flags say.
type Config struct {
	NodeName   string
	NodesFile  string // "" means Kubernetes
	Kubeconfig string // "" means in the cluster
	Fabric     fabric.Config
	// MasqueradeIPv4 and MasqueradeIPv6 give what leaves the cluster the
	// node's address, in that family.
	MasqueradeIPv4, MasqueradeIPv6 bool
	NonMasqueradeCIDRs             []netip.Prefix
	ClampMSS                       bool   // lower TCP's segment size to what the routes take
	BinDir, ConfDir, PluginsDir    string // "" installs no binaries, no configuration
	StateDir                       string
	SysctlDir                      string // where sysctls are files
	Listen                         string // address:port; "" listens nowhere
	Datapath                       string // datapathAuto, datapathKernel or datapathEBPF
	PodDevice                      string // deviceAuto, or a kernel.Device: what interfaces of new pods are
	Services                       bool   // balance Kubernetes Services
	NodePortAddresses              service.NodePortAddresses
	ServiceCIDRs                   []netip.Prefix
	LoadBalancerConfig             string // file with pools of addresses for Services; "" gives none
	Policies                       bool   // keep NetworkPolicies
	PoliciesDir                    string // YAML of policies, pods, namespaces and nodes; "" means Kubernetes
	PoliciesFile                   string // that tells the plugin which pods begin closed
	LogDrops                       bool   // log what policies refuse
	PoliciesWithoutAgent           string // closed.StayClosed or closed.BeOpen
	Health                         string // probeOthers or no probes
	ServicesHealth                 string // address:port; "" listens nowhere
	ServicesMetrics                string // address:port; "" listens nowhere
	BGPConfig                      string // "" speaks no BGP
	LogLevel                       slog.Level
	LogFormat                      string        // "text" or "json"
	Resync                         time.Duration // between full comparisons
	Collect                        time.Duration // between collections of what pods left
	Version                        string
}

// The ways that packets of established flows may take.
const (
	datapathAuto   = "auto" // eBPF where that is possible
	datapathKernel = "kernel"
	datapathEBPF   = "ebpf"
)

// EnvironmentPrefix begins the names of variables that flags take their
// defaults from: --log-level is FLATNETD_LOG_LEVEL.
const EnvironmentPrefix = "FLATNETD_"

// DefaultListen is where health, readiness and metrics are served.
const DefaultListen = "127.0.0.1:9370"

// DefaultPoliciesFile is where the plugin reads which pods begin closed.
const DefaultPoliciesFile = "/var/lib/flatnet/policies.json"

// DefaultServicesHealth is where load balancers ask kube-proxy.
const DefaultServicesHealth = ":10256"

// DefaultServicesMetrics is where monitoring asks kube-proxy.
const DefaultServicesMetrics = "127.0.0.1:10249"

// Flags declares flatnetd's flags, and returns what makes a Config of them
// once they are parsed. getenv supplies defaults.
func Flags(set *flag.FlagSet, getenv func(string) string) func() (Config, error) {
	var c Config
	hostname, _ := os.Hostname()
	own, _ := os.Executable()
	set.StringVar(&c.NodeName, "node-name", hostname, "`name` of this node in the source of nodes")
	set.StringVar(&c.NodesFile, "nodes-file", "", "YAML `file` that lists the nodes; without it they come from the Kubernetes API")
	set.StringVar(&c.Kubeconfig, "kubeconfig", "", "`file` with access to the Kubernetes API; without it, the pod's service account")
	mode := set.String("fabric", string(fabric.Auto), "how other nodes are reached, a `mode`: auto, direct, vxlan or none")
	set.StringVar(&c.Fabric.Tunnel, "vxlan-device", "flatnet.vx", "`name` of the VXLAN device")
	set.IntVar(&c.Fabric.VNI, "vxlan-id", 70, "VXLAN network `identifier`, 1 to 16777215, the same on all nodes")
	set.IntVar(&c.Fabric.Port, "vxlan-port", 4789, "UDP `port` of the overlay, the same on all nodes")
	set.BoolVar(&c.Fabric.Nodes, "overlay-nodes", true, "pods reach other nodes' own addresses through the overlay too; without it packets are faster, but the underlay has to let pods' addresses pass")
	set.StringVar(&c.Health, "health", HealthAuto, "whether this node and others probe each other, to tell of packets that do not get through, a `word`: auto or off")
	set.IntVar(&c.Fabric.MTU, "mtu", 0, "MTU of pods in `bytes`; 0 takes that of the underlay, less the overlay's overhead where there is one")
	set.BoolVar(&c.MasqueradeIPv4, "masquerade-ipv4", true, "give IPv4 traffic that leaves the cluster the node's address")
	set.BoolVar(&c.MasqueradeIPv6, "masquerade-ipv6", true, "give IPv6 traffic that leaves the cluster the node's address")
	exempt := set.String("non-masquerade-cidrs", "", "comma-separated `networks` outside of the cluster that see pods' own addresses")
	set.BoolVar(&c.ClampMSS, "clamp-mss", true, "lower the maximum segment size of TCP connections through this node to the MTU of the routes to both ends")
	set.StringVar(&c.BinDir, "cni-bin-dir", "/opt/cni/bin", "`directory` that flatnet and flatnet-ipam are installed in; empty: not installed")
	set.StringVar(&c.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` that 10-flatnet.conflist is written to; empty: not written")
	set.StringVar(&c.PluginsDir, "plugins-dir", filepath.Dir(own), "`directory` that the binaries are installed from")
	set.StringVar(&c.StateDir, "state-dir", netconf.DefaultStateDirectory, "`directory` of state, on a tmpfs")
	set.StringVar(&c.SysctlDir, "sysctl-dir", "/proc/sys", "`directory` of sysctls; in a container /proc/sys may be read-only, and the machine's be mounted elsewhere")
	set.StringVar(&c.Listen, "listen", DefaultListen, "`address` of /healthz, /readyz and /metrics; empty: not served")
	set.StringVar(&c.Datapath, "datapath", datapathAuto, "which way packets of established flows take, a `word`: kernel; ebpf, past netfilter and routing, which have decided about the flow; or auto, ebpf where that is possible")
	set.StringVar(&c.PodDevice, "pod-device", string(kernel.Veth), "what interfaces of new pods are, a `word`: veth; netkit (Linux 6.12); or auto, netkit where the kernel has it")
	set.BoolVar(&c.Services, "services", false, "balance the traffic to Kubernetes Services, instead of kube-proxy")
	nodePorts := set.String("nodeport-addresses", "", "comma-separated `networks` in which the node's addresses serve NodePorts, or primary, its first address of each family; with --services")
	serviceCIDRs := set.String("service-cidrs", "", "comma-separated `networks` of ClusterIPs: what goes to one that no Service has is dropped on the node; with --services")
	set.StringVar(&c.ServicesHealth, "services-health", DefaultServicesHealth, "`address` where load balancers ask whether the node balances Services; empty: not served; with --services")
	set.StringVar(&c.ServicesMetrics, "services-metrics", DefaultServicesMetrics, "`address` where kube-proxy's /metrics, /proxyMode and /healthz are answered; empty: not served; with --services")
	set.StringVar(&c.LoadBalancerConfig, "loadbalancer-config", "", "YAML `file` with pools of addresses for Services of type LoadBalancer, and at which interfaces the nodes answer for them; without it Services get none")
	set.BoolVar(&c.Policies, "policies", false, "keep the cluster's NetworkPolicies and ClusterNetworkPolicies")
	set.StringVar(&c.PoliciesDir, "policies-dir", "", "`directory` of YAML files with policies, pods, namespaces and nodes; without it they come from the Kubernetes API; with --policies")
	set.StringVar(&c.PoliciesFile, "policies-file", DefaultPoliciesFile, "`file` that tells the plugin in which namespaces new pods are closed until their policies are in place; it has to outlive a reboot; with --policies")
	set.StringVar(&c.PoliciesWithoutAgent, "policies-without-agent", closed.StayClosed, "what becomes of a new pod in a namespace with policies while no flatnetd runs, a `word`: closed or open; with --policies")
	set.BoolVar(&c.LogDrops, "log-drops", false, "log what policies refuse, with the names of pods, ten packets a second at most; with --policies")
	set.StringVar(&c.BGPConfig, "bgp-config", "", "YAML `file` that says which routers are spoken to by BGP, what they are told and what of theirs is accepted (docs/bgp.md); empty: none")
	set.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "lowest `level` that is logged: debug, info, warn or error")
	set.StringVar(&c.LogFormat, "log-format", "text", "`form` of the log: text or json")
	set.DurationVar(&c.Resync, "resync", time.Minute, "`time` between full comparisons with the kernel and the disk")
	set.DurationVar(&c.Collect, "collect", 5*time.Minute, "`time` between collections of what pods left behind")
	var environment []error
	set.VisitAll(func(f *flag.Flag) {
		name := Variable(f.Name)
		if value := getenv(name); value != "" {
			if err := f.Value.Set(value); err != nil {
				environment = append(environment, fmt.Errorf("variable %s=%s: %w", name, value, err))
			}
			f.DefValue = value
		}
	})
	return func() (Config, error) {
		var err error
		if c.Fabric.Mode, err = fabric.ParseMode(*mode); err != nil {
			return c, err
		}
		if c.NonMasqueradeCIDRs, err = parsePrefixes(*exempt); err != nil {
			return c, fmt.Errorf("--non-masquerade-cidrs: %w", err)
		}
		if c.NodePortAddresses, err = service.ParseNodePortAddresses(*nodePorts); err != nil {
			return c, err
		}
		if c.ServiceCIDRs, err = parsePrefixes(*serviceCIDRs); err != nil {
			return c, fmt.Errorf("--service-cidrs: %w", err)
		}
		c.Fabric.Answer = c.Health == HealthAuto
		return c, errors.Join(append(environment, c.validate())...)
	}
}

// Variable is the name of the environment variable of a flag.
func Variable(flagName string) string {
	return EnvironmentPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

func parsePrefixes(list string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network: %w", text, err)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has host bits set: %s is meant", text, p.Masked())
		}
		all = append(all, p)
	}
	return all, nil
}

// hasPort reports whether an address to listen at has a port, 1 to 65535.
func hasPort(address string) bool {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func (c *Config) validate() error {
	const (
		maximumVNI       = 1<<24 - 1
		maximumPort      = 1<<16 - 1
		minimumMTU       = 576 // every IPv4 host accepts that much (RFC 1122, 3.3.2)
		maximumMTU       = 65535
		maximumInterface = 15 // IFNAMSIZ without the terminating zero
	)
	var errs []error
	check := func(good bool, format string, a ...any) {
		if !good {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	check(c.NodeName != "", "--node-name is empty: give the node's name in the source of nodes")
	check(c.Services || c.BGPConfig != "" || c.LoadBalancerConfig != "" || c.Policies && c.PoliciesDir == "" || c.NodesFile == "" || c.Kubeconfig == "", "--nodes-file and --kubeconfig name two sources of nodes: give one")
	check(c.Fabric.VNI >= 1 && c.Fabric.VNI <= maximumVNI, "--vxlan-id %d is not within 1 to %d", c.Fabric.VNI, maximumVNI)
	check(c.Fabric.Port >= 1 && c.Fabric.Port <= maximumPort, "--vxlan-port %d is not within 1 to %d", c.Fabric.Port, maximumPort)
	check(c.Fabric.MTU == 0 || c.Fabric.MTU >= minimumMTU && c.Fabric.MTU <= maximumMTU, "--mtu %d is not 0 or within %d to %d", c.Fabric.MTU, minimumMTU, maximumMTU)
	check(c.Fabric.Tunnel != "" && len(c.Fabric.Tunnel) <= maximumInterface && !strings.ContainsAny(c.Fabric.Tunnel, "/ \t\n:%"),
		"--vxlan-device %q is not the name of an interface", c.Fabric.Tunnel)
	check(c.Health == HealthAuto || c.Health == HealthOff, "--health %q is not %s or %s", c.Health, HealthAuto, HealthOff)
	check(c.Datapath == datapathAuto || c.Datapath == datapathKernel || c.Datapath == datapathEBPF, "--datapath %q is not %s, %s or %s", c.Datapath, datapathAuto, datapathKernel, datapathEBPF)
	check(c.PodDevice == deviceAuto || c.PodDevice == string(kernel.Veth) || c.PodDevice == string(kernel.Netkit), "--pod-device %q is not %s, %s or %s", c.PodDevice, deviceAuto, kernel.Veth, kernel.Netkit)
	check(c.LogFormat == "text" || c.LogFormat == "json", "--log-format %q is not text or json", c.LogFormat)
	check(c.Resync >= time.Second, "--resync %s is less than a second", c.Resync)
	check(c.Collect >= time.Second, "--collect %s is less than a second", c.Collect)
	for _, d := range []struct{ flag, path string }{
		{"cni-bin-dir", c.BinDir}, {"cni-conf-dir", c.ConfDir}, {"plugins-dir", c.PluginsDir}, {"state-dir", c.StateDir}, {"sysctl-dir", c.SysctlDir},
		{"policies-dir", c.PoliciesDir}, {"policies-file", c.PoliciesFile}, {"bgp-config", c.BGPConfig}, {"loadbalancer-config", c.LoadBalancerConfig},
	} {
		check(d.path == "" || filepath.IsAbs(d.path), "--%s %q is not an absolute path", d.flag, d.path)
	}
	for _, l := range []struct{ flag, address string }{{"services-health", c.ServicesHealth}, {"services-metrics", c.ServicesMetrics}} {
		// An address that is in use is tried again; what is none would be for ever.
		check(l.address == "" || hasPort(l.address), "--%s %q is not an address with a port, as in 127.0.0.1:10249 or :10249", l.flag, l.address)
	}
	check(c.PoliciesWithoutAgent == closed.StayClosed || c.PoliciesWithoutAgent == closed.BeOpen, "--policies-without-agent %q is not %s or %s", c.PoliciesWithoutAgent, closed.StayClosed, closed.BeOpen)
	check(c.PoliciesFile != "", "--policies-file is empty")
	check(c.StateDir != "", "--state-dir is empty")
	check(c.SysctlDir != "", "--sysctl-dir is empty")
	return errors.Join(errs...)
}

// Logger returns the log that the configuration asks for.
func (c Config) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if c.LogFormat == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(handler).With("node", c.NodeName)
}
