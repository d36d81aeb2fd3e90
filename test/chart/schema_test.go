package chart

import (
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/lint/support"
)

// The sentence names the value.
func TestWrongValuesAreRefused(t *testing.T) {
	for set, want := range map[string]string{
		"fabric.mode=vlan":                            "at '/fabric/mode': value must be one of 'auto', 'direct', 'vxlan', 'none'",
		"fabric.mtu=100":                              "at '/fabric/mtu': minimum: got 100, want 576",
		"fabric.vxlan.id=16777216":                    "at '/fabric/vxlan/id': maximum",
		"fabric.vxlan.port=0":                         "at '/fabric/vxlan/port': minimum: got 0, want 1",
		"fabric.vxlan.device=a-very-long-name":        "at '/fabric/vxlan/device': maxLength: got 16, want 15",
		"masquerade.exceptCIDRs={10.0.0.1}":           "at '/masquerade/exceptCIDRs/0': '10.0.0.1' does not match",
		"masquerade.exceptCIDRs=10.0.0.0/8":           "at '/masquerade/exceptCIDRs': got string, want array",
		"services.enabled=yes":                        "at '/services/enabled': got string, want boolean",
		"services.metrics=10249":                      "at '/services/metrics': got number, want string",
		"services.health=localhost":                   "at '/services/health': 'localhost' does not match",
		"policies.withoutAgent=shut":                  "at '/policies/withoutAgent': value must be one of 'closed', 'open'",
		"log.level=trace":                             "at '/log/level': value must be one of 'debug', 'info', 'warn', 'error'",
		"resync=60":                                   "at '/resync': got number, want string",
		"collect=5min":                                "at '/collect': '5min' does not match",
		"cni.binDir=opt/cni/bin":                      "at '/cni/binDir': 'opt/cni/bin' does not match",
		"metrics.port=70000":                          "at '/metrics/port': maximum: got 70,000, want 65,535",
		"image.digest=abc":                            "at '/image/digest': 'abc' does not match",
		"image.pullPolicy=Sometimes":                  "at '/image/pullPolicy': value must be one of",
		"namespace.name=Flat_Net":                     "at '/namespace/name': 'Flat_Net' does not match",
		"maxUnavailable=0":                            "at '/maxUnavailable': minimum: got 0, want 1",
		"podLabels.app\\.kubernetes\\.io/name=cilium": "at '/podLabels/app.kubernetes.io~1name'",
		"fabric.mdoe=vxlan":                           "at '/fabric': additional properties 'mdoe' not allowed",
		"masq.ipv4=false":                             "additional properties 'masq' not allowed",
	} {
		_, err := install(t, configuration(t), elsewhere, set)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: %v, want %s", set, err, want)
		}
	}
}

// Beside each value one with another name is refused, and in its place one of another type.
func TestSchemaIsWhole(t *testing.T) {
	log.SetOutput(io.Discard) // Helm warns before it refuses
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	values := load(t).Values
	for _, leaf := range leaves(values, "") {
		parent := ""
		if i := strings.LastIndex(leaf, "."); i >= 0 {
			parent = leaf[:i+1]
		}
		_, isMap := at(values, strings.Split(leaf, ".")...).(map[string]any)
		other := leaf + ".wrong=1"
		if isMap {
			other = leaf + "={wrong}"
		}
		for set, want := range map[string]string{parent + "misspelt=1": "'misspelt' not allowed", other: "at '/" + strings.ReplaceAll(leaf, ".", "/") + "'"} {
			if _, err := install(t, configuration(t), elsewhere, set); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("--set %s: %v, want %s", set, err, want)
			}
		}
	}
}

// What `helm lint --strict` says of the defaults, and of all values at once.
func TestLint(t *testing.T) {
	var all []string
	for _, e := range effects {
		if !strings.HasPrefix(e.set, "tolerations") && !strings.HasPrefix(e.set, "affinity") {
			all = append(all, e.set)
		}
	}
	for _, set := range []string{"", strings.Join(all, ",")} {
		l := action.NewLint()
		l.Strict, l.WithSubcharts = true, true
		version := configuration(t).Capabilities.KubeVersion
		l.KubeVersion = &version
		result := l.Run([]string{deploy("chart")}, values(t, set))
		for _, err := range result.Errors {
			t.Error(err)
		}
		if result.TotalChartsLinted != 1 {
			t.Errorf("%d charts are linted", result.TotalChartsLinted)
		}
		for _, m := range result.Messages {
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
	}
}

// The notes say what is to be said of the values, and what they say to run is right.
func TestNotes(t *testing.T) {
	for set, want := range map[string][]string{
		"":                            {"auto, Services left to kube-proxy, policies kept", "kubectl -n flatnet exec ds/flatnetd -- flatnetd status"},
		"services.enabled=true":       {"Services balanced by flatnetd", "set apiServer.host"},
		"namespace.name=network":      {"kubectl -n network rollout status daemonset/flatnetd"},
		"cleanup.enabled=true":        {"removes itself", "helm uninstall flatnet --namespace kube-system"},
		"policies.enabled=false":      {"policies not kept"},
		"namespace.name=" + elsewhere: {"kubectl label namespace kube-system pod-security.kubernetes.io/enforce=privileged"},
	} {
		notes := installed(t, set).Info.Notes
		for _, sentence := range want {
			if !strings.Contains(notes, sentence) {
				t.Errorf("--set %s: the notes lack %q:\n%s", set, sentence, notes)
			}
		}
	}
	if notes := installed(t, "services.enabled=true,apiServer.host=172.30.0.1").Info.Notes; strings.Contains(notes, "apiServer.host is empty") {
		t.Errorf("the notes ask for what is there:\n%s", notes)
	}
}

// The chart carries what it makes monitoring objects of, and nothing that is not needed.
func TestFiles(t *testing.T) {
	c := load(t)
	var names []string
	for _, f := range c.Files {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if want := []string{"files/dashboard.json", "files/rules.yaml"}; !slices.Equal(names, want) {
		t.Errorf("files are %s, want %s", names, want)
	}
	if len(slices.Collect(maps.Keys(c.Values))) == 0 || c.Schema == nil {
		t.Error("there are no values, or no schema")
	}
}
