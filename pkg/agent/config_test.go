package agent

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/fabric"
)

func parse(environment map[string]string, arguments ...string) (Config, error) {
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	config := Flags(set, func(name string) string { return environment[name] })
	if err := set.Parse(append([]string{"--node-name=n1"}, arguments...)); err != nil {
		return Config{}, err
	}
	return config()
}

func TestFlags(t *testing.T) {
	c, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Fabric != (fabric.Config{Mode: fabric.Auto, Tunnel: "flatnet.vx", VNI: 70, Port: 4789, Nodes: true, Answer: true}) || !c.MasqueradeIPv4 || !c.MasqueradeIPv6 || c.Listen != DefaultListen {
		t.Errorf("defaults: %+v", c)
	}
	c, err = parse(map[string]string{"FLATNETD_FABRIC": "vxlan", "FLATNETD_VXLAN_ID": "7", "FLATNETD_RESYNC": "5s"},
		"--vxlan-id=8", "--non-masquerade-cidrs=192.0.2.0/24,2001:db8::/32", "--masquerade-ipv6=false")
	if err != nil {
		t.Fatal(err)
	}
	if c.Fabric.Mode != fabric.VXLAN || c.Fabric.VNI != 8 || c.Resync != 5*time.Second || c.MasqueradeIPv6 {
		t.Errorf("a flag is to win over its variable, a variable over the default: %+v", c)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}; !slices.Equal(c.NonMasqueradeCIDRs, want) {
		t.Errorf("exempt: %v", c.NonMasqueradeCIDRs)
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for _, c := range []struct {
		environment map[string]string
		arguments   []string
		want        []string
	}{
		{nil, []string{"--fabric=ipip"}, []string{`"ipip"`, "auto, direct, vxlan, none"}},
		{nil, []string{"--vxlan-id=0"}, []string{"--vxlan-id 0", "1 to 16777215"}},
		{nil, []string{"--vxlan-id=16777216"}, []string{"--vxlan-id 16777216"}},
		{nil, []string{"--vxlan-port=65536"}, []string{"--vxlan-port 65536", "1 to 65535"}},
		{nil, []string{"--pod-device=ipvlan"}, []string{`--pod-device "ipvlan"`, "auto, veth or netkit"}},
		{nil, []string{"--mtu=100"}, []string{"--mtu 100", "576 to 65535"}},
		{nil, []string{"--vxlan-device=a/b"}, []string{`--vxlan-device "a/b"`}},
		{nil, []string{"--vxlan-device=sixteen-characte"}, []string{"--vxlan-device"}},
		{nil, []string{"--node-name="}, []string{"--node-name is empty"}},
		{nil, []string{"--nodes-file=/a", "--kubeconfig=/b"}, []string{"--nodes-file", "--kubeconfig"}},
		{nil, []string{"--non-masquerade-cidrs=192.0.2.1/24"}, []string{"--non-masquerade-cidrs", `"192.0.2.1/24"`, "192.0.2.0/24"}},
		{nil, []string{"--non-masquerade-cidrs=192.0.2.0"}, []string{"--non-masquerade-cidrs", `"192.0.2.0"`}},
		{nil, []string{"--cni-bin-dir=bin"}, []string{`--cni-bin-dir "bin"`, "absolute"}},
		{nil, []string{"--state-dir="}, []string{"--state-dir is empty"}},
		{nil, []string{"--health=on"}, []string{`--health "on"`, "auto", "off"}},
		{nil, []string{"--log-format=xml"}, []string{`"xml"`}},
		{nil, []string{"--log-level=loud"}, []string{"loud"}},
		{nil, []string{"--resync=1ms"}, []string{"--resync 1ms"}},
		{nil, []string{"--nodeport-addresses=eth0"}, []string{"--nodeport-addresses", `"eth0"`, "primary", "192.0.2.0/24"}},
		{nil, []string{"--services-health=10256"}, []string{`--services-health "10256"`, ":10249"}},
		{nil, []string{"--services-metrics=localhost"}, []string{`--services-metrics "localhost"`, "127.0.0.1:10249"}},
		{nil, []string{"--services-metrics=127.0.0.1:70000"}, []string{`--services-metrics "127.0.0.1:70000"`}},
		{nil, []string{"--service-cidrs=10.96.0.1/12"}, []string{"--service-cidrs", `"10.96.0.1/12"`, "10.96.0.0/12"}},
		{map[string]string{"FLATNETD_SERVICES": "yes please"}, nil, []string{"FLATNETD_SERVICES=yes please"}},
		{map[string]string{"FLATNETD_VXLAN_PORT": "many"}, nil, []string{"FLATNETD_VXLAN_PORT=many"}},
	} {
		_, err := parse(c.environment, c.arguments...)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v %v: %v, want %q", c.environment, c.arguments, err, want)
			}
		}
	}
}

func TestWrongUseIsExplained(t *testing.T) {
	for _, c := range []struct {
		arguments []string
		status    int
		want      string
	}{
		{[]string{"run"}, exitUsage, `unknown command "run"`},
		{[]string{"status", "--state-dir", "/nonexistent"}, exitFailed, "no flatnetd runs with --state-dir /nonexistent"},
		{[]string{"status", "-o", "xml"}, exitUsage, `-o "xml"`},
		{[]string{"status", "services", "-o", "xml"}, exitUsage, `-o "xml"`},
		{[]string{"status", "--state-dir", "/nonexistent", "services", "-o", "json"}, exitFailed, "no flatnetd runs with --state-dir /nonexistent"},
		{[]string{"status", "nodes"}, exitUsage, `unknown argument "nodes"`},
		{[]string{"cleanup", "services"}, exitUsage, `unknown argument "services"`},
		{[]string{"--vxlan-id=0"}, exitUsage, "--vxlan-id 0"},
		{[]string{"--no-such-flag"}, exitUsage, "-no-such-flag"},
		{[]string{"version", "--node-name=n1"}, exitOK, "1.2.3"},
		{[]string{"--help"}, exitOK, "FLATNETD_LOG_LEVEL"},
	} {
		var out bytes.Buffer
		status := Main(context.Background(), "1.2.3", c.arguments, func(string) string { return "" }, &out, &out)
		if status != c.status || !strings.Contains(out.String(), c.want) {
			t.Errorf("flatnetd %v: status %d, %s", c.arguments, status, out.String())
		}
	}
}

func TestFlagsOfServices(t *testing.T) {
	c, err := parse(nil)
	if err != nil || c.Services || !c.NodePortAddresses.Primary || c.ServicesHealth != ":10256" || c.ServicesMetrics != "127.0.0.1:10249" {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	c, err = parse(map[string]string{"FLATNETD_SERVICES": "true"}, "--nodes-file=/a", "--kubeconfig=/b", "--nodeport-addresses=192.0.2.0/24,primary", "--service-cidrs=10.96.0.0/12", "--services-health=", "--services-metrics=")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Services || !c.NodePortAddresses.Primary || len(c.NodePortAddresses.Prefixes) != 1 || len(c.ServiceCIDRs) != 1 || c.ServicesHealth != "" || c.ServicesMetrics != "" {
		t.Errorf("flags: %+v", c)
	}
}

// TestServicesNeedTheAPI: where there is none, the error says what to do.
func TestServicesNeedTheAPI(t *testing.T) {
	var out bytes.Buffer
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	arguments := []string{"--services", "--nodes-file=/nonexistent", "--state-dir=" + t.TempDir()}
	status := Main(context.Background(), "1.2.3", arguments, func(string) string { return "" }, &out, &out)
	if status != exitFailed || !strings.Contains(out.String(), "Services come from the Kubernetes API: outside of a cluster, give --kubeconfig") {
		t.Errorf("status %d, %s", status, out.String())
	}
}
