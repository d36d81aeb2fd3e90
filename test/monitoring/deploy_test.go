// Package monitoring tests deploy/monitoring: that alerts fire when they should, and
// that alerts, dashboard and documentation ask for metrics that flatnetd has.
package monitoring

import (
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/reference"
)

var update = flag.Bool("update", false, "write what is made out of deploy/monitoring/rules.yaml anew")

// panel is what is looked at of a panel of Grafana's.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
		Datasource   struct{ UID string }
	} `json:"targets"`
}

// Every panel asks for what is there, in queries that Prometheus understands.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		UID        string
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy", "monitoring", "dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	known := known(t)
	inUse, ids, taken := map[string]bool{}, map[int]bool{}, map[[2]int]string{}
	valued := regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	variables := strings.NewReplacer("$job", "x", "$node", "y", "$__rate_interval", "5m")
	var queries ruleFile
	queries.Groups = []group{{Name: "dashboard"}}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has the number %d of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x >= 24 {
					t.Fatalf("panel %q is where %q is, or out of the page", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expression := variables.Replace(target.Expr)
			var labels []string
			for _, m := range valued.FindAllStringSubmatch(target.LegendFormat, -1) {
				labels = append(labels, m[1])
			}
			check(t, known, fmt.Sprintf("panel %q", p.Title), expression, labels)
			for _, s := range parse(expression).selectors {
				inUse[s.metric] = true
			}
			if target.Datasource.UID != "${datasource}" || strings.Contains(expression, "$") {
				t.Errorf("panel %q asks %q for %s", p.Title, target.Datasource.UID, target.Expr)
			}
			queries.Groups[0].Rules = append(queries.Groups[0].Rules, rule{Record: fmt.Sprintf("panel:%d:%s", p.ID, target.RefID), Expr: expression})
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" && !strings.HasPrefix(v.Query, "label_values(flatnet_build_info") {
			t.Errorf("variable %s is %s", v.Name, v.Query)
		}
	}
	// What flatnetd tells is shown. kube-proxy's names have dashboards of their own.
	for metric := range known {
		whole := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(metric, "")
		if strings.HasPrefix(metric, "flatnet_") && !inUse[metric] && !inUse[whole+"_bucket"] && !inUse[whole+"_count"] {
			t.Errorf("no panel shows %s", metric)
		}
	}
	promtool(t, "check", "rules", write(t, t.TempDir(), "dashboard.yaml", queries))
}

// What the component adds to the base fits it, and Prometheus finds what it asks for.
func TestManifests(t *testing.T) {
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	agent.Flags(set, func(string) string { return "" })
	for directory, want := range map[string]struct{ flag, port string }{
		"":         {"listen", agent.DefaultListen},
		"services": {"services-metrics", agent.DefaultServicesMetrics},
	} {
		var settings struct {
			Metadata struct{ Name, Namespace string }
			Data     map[string]string
		}
		var pods struct {
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Name  string
							Ports []struct {
								Name                    string
								ContainerPort, HostPort int
							}
						}
					}
				}
			}
		}
		var monitor struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
			Spec             struct {
				JobLabel string
				Selector struct{ MatchLabels map[string]string }

				PodMetricsEndpoints []struct {
					Port        string
					HonorLabels bool
				}
			}
		}
		for name, into := range map[string]any{"configmap.yaml": &settings, "daemonset.yaml": &pods, "podmonitor.yaml": &monitor} {
			if err := yaml.Unmarshal([]byte(read(t, "deploy", "monitoring", directory, name)), into); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		_, port, _ := strings.Cut(want.port, ":")
		if len(settings.Data) != 1 || settings.Data[agent.Variable(want.flag)] != ":"+port || set.Lookup(want.flag) == nil {
			t.Errorf("%s: the ConfigMap has %v, want %s at all addresses", directory, settings.Data, want.flag)
		}
		containers := pods.Spec.Template.Spec.Containers
		if len(containers) != 1 || containers[0].Name != "flatnetd" || len(containers[0].Ports) != 1 {
			t.Fatalf("%s: the DaemonSet has %v", directory, containers)
		}
		p := containers[0].Ports[0]
		if fmt.Sprint(p.ContainerPort) != port || p.HostPort != p.ContainerPort {
			t.Errorf("%s: the port is %v, want %s", directory, p, port)
		}
		ends := monitor.Spec.PodMetricsEndpoints
		if len(ends) != 1 || ends[0].Port != p.Name || !ends[0].HonorLabels || monitor.Spec.Selector.MatchLabels["app.kubernetes.io/name"] != "flatnetd" || monitor.Spec.JobLabel != "app.kubernetes.io/name" {
			t.Errorf("%s: the PodMonitor is %+v", directory, monitor.Spec)
		}
		if !strings.Contains(read(t, "deploy", "monitoring", "prometheus.yaml"), "flatnetd;(proxy-)?metrics") {
			t.Errorf("prometheus.yaml does not ask at port %s", p.Name)
		}
	}
}

// The configuration for a Prometheus without Operator is one. Debian's promtool knows
// none of the clouds and orchestrators that targets come from.
func TestConfiguration(t *testing.T) {
	text := read(t, "deploy", "monitoring", "prometheus.yaml")
	discovery := regexp.MustCompile(`(?m)^    kubernetes_sd_configs:\n(      .*\n)+`)
	if len(discovery.FindAllString(text, -1)) != 1 || !strings.Contains(text, "job_name: flatnetd\n") || !strings.Contains(text, "honor_labels: true\n") {
		t.Fatalf("the configuration is\n%s", text)
	}
	directory := t.TempDir()
	write(t, directory, "rules.yaml", []byte(read(t, "deploy", "monitoring", "rules.yaml")))
	promtool(t, "check", "config", write(t, directory, "prometheus.yaml", []byte(discovery.ReplaceAllString(text, ""))))
}

// What kustomize makes of it, where kubectl is installed.
func TestKustomize(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl, which has kustomize in it, is not installed")
	}
	build := func(directory string) string {
		out, err := exec.Command(kubectl, "kustomize", directory).Output()
		if err != nil {
			t.Fatalf("building %s: %v", directory, err)
		}
		return string(out)
	}
	kinds := func(text string) (all []string) {
		for _, m := range regexp.MustCompile(`(?m)^kind: (\w+)$`).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		slices.Sort(all)
		return all
	}
	plain, with := build(reference.Path(t, "deploy", "base")), build(reference.Path(t, "deploy", "overlays", "monitoring"))
	want := append(kinds(plain), "ConfigMap", "PodMonitor", "PrometheusRule")
	slices.Sort(want)
	if !slices.Equal(kinds(with), want) {
		t.Errorf("the overlay has %v, want %v", kinds(with), want)
	}
	for _, line := range []string{"  FLATNETD_LISTEN: :9370\n", "          hostPort: 9370\n", "    grafana_dashboard: \"1\"\n", "  name: flatnet-dashboard\n"} {
		if !strings.Contains(with, line) || strings.Contains(plain, line) {
			t.Errorf("the overlay does not add %q", line)
		}
	}
	// The other component, as its first lines say.
	directory := t.TempDir()
	relative := func(elements ...string) string {
		path, err := filepath.Rel(directory, reference.Path(t, elements...))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(t, directory, "kustomization.yaml", map[string]any{
		"resources":  []string{relative("deploy", "base")},
		"components": []string{relative("deploy", "components", "services"), relative("deploy", "monitoring"), relative("deploy", "monitoring", "services")},
	})
	all := build(directory)
	for _, line := range []string{"  FLATNETD_SERVICES_METRICS: :10249\n", "  FLATNETD_LISTEN: :9370\n", "          name: metrics\n", "          name: proxy-metrics\n", "  FLATNETD_SERVICES: \"true\"\n"} {
		if !strings.Contains(all, line) {
			t.Errorf("both components do not make %q", line)
		}
	}
	if n := strings.Count(all, "\nkind: PodMonitor\n"); n != 2 {
		t.Errorf("there are %d PodMonitors, want two", n)
	}
}
