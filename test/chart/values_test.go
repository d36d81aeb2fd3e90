package chart

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
)

// set is a value that is not the default, with what else it takes to have an effect, and a
// line that is then made. The last one of what is set is what the row is about.
type set struct{ set, line string }

var effects = []set{
	{"image.repository=registry.example.com/net", "image: registry.example.com/net:latest"},
	{"image.tag=v1.2.3", "image: ghcr.io/flatnet-cni/flatnet:v1.2.3"},
	{"image.digest=" + digest, "image: ghcr.io/flatnet-cni/flatnet@" + digest},
	{"image.pullPolicy=Always", "imagePullPolicy: Always"},
	{"imagePullSecrets[0].name=registry", "name: registry"},
	{"namespace.name=network", "namespace: network"},
	{"fabric.mode=vxlan", "FLATNETD_FABRIC: vxlan"},
	{"fabric.mtu=1400", `FLATNETD_MTU: "1400"`},
	{"fabric.overlayNodes=false", `FLATNETD_OVERLAY_NODES: "false"`},
	{"fabric.health=off", `FLATNETD_HEALTH: "off"`},
	{"fabric.clampMSS=false", `FLATNETD_CLAMP_MSS: "false"`},
	{"fabric.datapath=kernel", "FLATNETD_DATAPATH: kernel"},
	{"fabric.podDevice=netkit", "FLATNETD_POD_DEVICE: netkit"},
	{"fabric.vxlan.id=16777215", `FLATNETD_VXLAN_ID: "16777215"`},
	{"fabric.vxlan.port=8472", `FLATNETD_VXLAN_PORT: "8472"`},
	{"fabric.vxlan.device=overlay", "FLATNETD_VXLAN_DEVICE: overlay"},
	{"masquerade.ipv4=false", `FLATNETD_MASQUERADE_IPV4: "false"`},
	{"masquerade.ipv6=false", `FLATNETD_MASQUERADE_IPV6: "false"`},
	{"masquerade.exceptCIDRs={10.0.0.0/8,fd00::/8}", "FLATNETD_NON_MASQUERADE_CIDRS: 10.0.0.0/8,fd00::/8"},
	{"services.enabled=true", `FLATNETD_SERVICES: "true"`},
	{"services.nodePortAddresses={primary}", "FLATNETD_NODEPORT_ADDRESSES: primary"},
	{"services.cidrs={10.96.0.0/16,fd00:96::/112}", "FLATNETD_SERVICE_CIDRS: 10.96.0.0/16,fd00:96::/112"},
	{"services.health=127.0.0.1:10256", "FLATNETD_SERVICES_HEALTH: 127.0.0.1:10256"},
	{"services.metrics=:10249", "FLATNETD_SERVICES_METRICS: :10249"},
	{"loadBalancer.pools[0].name=lan,loadBalancer.pools[0].addresses[0]=192.168.1.200", "FLATNETD_LOADBALANCER_CONFIG: /etc/flatnet/loadbalancer/pools.yaml"},
	{"loadBalancer.pools[0].name=lan,loadBalancer.pools[0].addresses[0]=192.168.1.200,loadBalancer.defaultClass=true", "defaultClass: true"},
	{"apiServer.host=172.30.0.1", "KUBERNETES_SERVICE_HOST: 172.30.0.1"},
	{"apiServer.host=172.30.0.1,apiServer.port=443", `KUBERNETES_SERVICE_PORT: "443"`},
	{"policies.enabled=false", `FLATNETD_POLICIES: "false"`},
	{"policies.withoutAgent=open", "FLATNETD_POLICIES_WITHOUT_AGENT: open"},
	{"policies.logDrops=true", `FLATNETD_LOG_DROPS: "true"`},
	{"bgp.config=asn: 64512", "FLATNETD_BGP_CONFIG: /etc/flatnet/bgp/bgp.yaml"},
	{"bgp.config=asn: 64512,bgp.passwordsSecret=passwords", "secretName: passwords"},
	{"log.level=debug", "FLATNETD_LOG_LEVEL: debug"},
	{"log.format=json", "FLATNETD_LOG_FORMAT: json"},
	{"resync=30s", "FLATNETD_RESYNC: 30s"},
	{"collect=1h30m", "FLATNETD_COLLECT: 1h30m"},
	{"cni.binDir=/usr/lib/cni", "FLATNETD_CNI_BIN_DIR: /usr/lib/cni"},
	{"cni.confDir=/usr/etc/cni", "FLATNETD_CNI_CONF_DIR: /usr/etc/cni"},
	{"metrics.port=9999", "FLATNETD_LISTEN: 127.0.0.1:9999"},
	{"metrics.port=9999,metrics.allAddresses=true", "FLATNETD_LISTEN: :9999"},
	{"monitoring.enabled=true", "kind: PodMonitor"},
	{"monitoring.enabled=true,monitoring.labels.release=prometheus", "release: prometheus"},
	{"monitoring.enabled=true,monitoring.interval=10s", "interval: 10s"},
	{"monitoring.enabled=true,monitoring.dashboardLabels.folder=net", "folder: net"},
	{"resources.limits.memory=1Gi", "memory: 1Gi"},
	{"resources.requests.cpu=77m", "cpu: 77m"},
	{"nodeSelector.flatnet=enabled", "flatnet: enabled"},
	{"tolerations[0].key=only,tolerations[0].operator=Exists", "key: only"},
	{"affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=7", "weight: 7"},
	{"priorityClassName=ours", "priorityClassName: ours"},
	{"maxUnavailable=1", "maxUnavailable: 1"},
	{"podAnnotations.who=us", "who: us"},
	{"podLabels.team=net", "team: net"},
	{"extraEnv[0].name=GOGC,extraEnv[0].value=off", "name: GOGC"},
	{"cleanup.enabled=true", "cleanup"},
	{"cleanup.enabled=true,cleanup.image=example.com/pause:1", "image: example.com/pause:1"},
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestEveryValueHasItsEffect(t *testing.T) {
	usual := lines(t, objects(t, installed(t, "").Manifest))
	var about []string
	for _, e := range effects {
		made := lines(t, objects(t, installed(t, e.set).Manifest))
		if usual[e.line] || !made[e.line] {
			t.Errorf("--set %s does not make %q", e.set, e.line)
		}
		// What one value is for changes no other setting.
		if strings.HasPrefix(e.line, "FLATNETD_") {
			for line := range made {
				if strings.HasPrefix(line, "FLATNETD_") && !usual[line] && line != e.line {
					t.Errorf("--set %s makes %q as well", e.set, line)
				}
			}
		}
		about = append(about, e.set)
	}
	for _, leaf := range leaves(load(t).Values, "") {
		if leaf == "namespace.create" { // TestNamespace
			continue
		}
		if !slices.ContainsFunc(about, func(s string) bool { return strings.Contains(","+s, ","+leaf) }) {
			t.Errorf("value %s is not tried", leaf)
		}
	}
	// A comment that begins with a flag is of a value that sets it.
	text, err := os.ReadFile(deploy("chart", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ *# --([a-z0-9-]+):`).FindAllStringSubmatch(string(text), -1) {
		variable := "FLATNETD_" + strings.ToUpper(strings.ReplaceAll(m[1], "-", "_")) + ": "
		if !slices.ContainsFunc(effects, func(e set) bool { return strings.HasPrefix(e.line, variable) }) {
			t.Errorf("values.yaml has a value for --%s, and none makes %s", m[1], variable)
		}
	}
}

// leaves are the paths of what is no map, or an empty one.
func leaves(values map[string]any, prefix string) (all []string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if below, is := values[key].(map[string]any); is && len(below) > 0 && !freeForm(prefix+key) {
			all = append(all, leaves(below, prefix+key+".")...)
			continue
		}
		all = append(all, prefix+key)
	}
	return all
}

// freeForm are maps whose keys are the user's.
func freeForm(path string) bool {
	return slices.Contains([]string{
		"nodeSelector", "affinity", "podAnnotations", "podLabels", "monitoring.labels", "monitoring.dashboardLabels", "resources.limits", "resources.requests",
	}, path)
}

// Numbers of a file are floating-point numbers to Helm, and large ones would be written so.
func TestNumbersOfFiles(t *testing.T) {
	set, err := chartutil.ReadValues([]byte("{fabric: {vxlan: {id: 16777215, port: 65535}, mtu: 65535}, apiServer: {host: here, port: 65535}, metrics: {port: 65535}}"))
	if err != nil {
		t.Fatal(err)
	}
	i := action.NewInstall(configuration(t))
	i.ReleaseName, i.Namespace = "flatnet", elsewhere
	r, err := i.Run(load(t), set)
	if err != nil {
		t.Fatal(err)
	}
	made := lines(t, objects(t, r.Manifest))
	for _, line := range []string{
		`FLATNETD_VXLAN_ID: "16777215"`, `FLATNETD_VXLAN_PORT: "65535"`, `FLATNETD_MTU: "65535"`, `KUBERNETES_SERVICE_PORT: "65535"`, "FLATNETD_LISTEN: 127.0.0.1:65535", "port: 65535",
	} {
		if !made[line] {
			t.Errorf("%q is not made", line)
		}
	}
}

// Ports follow what is served where.
func TestPorts(t *testing.T) {
	all := objects(t, installed(t, "monitoring.enabled=true,services.enabled=true,metrics.port=9999,services.metrics=127.0.0.1:9998").Manifest)
	container := at(all["DaemonSet flatnetd"], "spec", "template", "spec", "containers").([]any)[0]
	want := "[map[containerPort:9998 hostPort:9998 name:proxy-metrics] map[containerPort:9999 hostPort:9999 name:metrics]]"
	if got := fmt.Sprint(at(container, "ports")); got != want {
		t.Errorf("ports are %s, want %s", got, want)
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		if port := at(container, probe, "httpGet", "port"); fmt.Sprint(port) != "9999" {
			t.Errorf("%s asks port %v", probe, port)
		}
	}
	data := at(all["ConfigMap flatnet"], "data")
	if got := fmt.Sprint(at(data, "FLATNETD_LISTEN"), at(data, "FLATNETD_SERVICES_METRICS")); got != ":9999:9998" {
		t.Errorf("served at %s", got)
	}
}
