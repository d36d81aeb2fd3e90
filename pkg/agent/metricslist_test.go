package agent

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	requests "k8s.io/client-go/tools/metrics"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// described is a metric as the documentation has it.
type described struct {
	kind, help string
	labels     []string
}

// description is how a [prometheus.Desc] tells of itself, which nothing else does.
var description = regexp.MustCompile(`^Desc\{fqName: "(.*)", help: "(.*?)", (?:unit: ".*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// describe lists what the collectors have by its name. What has labels tells nothing, nor
// its type, before there is one with their values: give it one. Where that takes a
// cluster, the type is what Prometheus' rules for names say.
func describe(t *testing.T, all ...prometheus.Collector) map[string]described {
	t.Helper()
	list := map[string]described{}
	for _, c := range all {
		descriptions := make(chan *prometheus.Desc, 1000)
		c.Describe(descriptions)
		close(descriptions)
		for d := range descriptions {
			parts := description.FindStringSubmatch(d.String())
			if parts == nil {
				t.Fatalf("a description is not understood: %s", d)
			}
			unquoted := strings.ReplaceAll(strings.ReplaceAll(parts[2], `\"`, `"`), `\\`, `\`)
			m := described{kind: "gauge", help: unquoted}
			if strings.HasSuffix(parts[1], "_total") {
				m.kind = "counter"
			}
			for _, pair := range append(strings.Split(parts[3], ","), strings.Split(parts[4], ",")...) {
				if name, _, _ := strings.Cut(pair, "="); name != "" {
					m.labels = append(m.labels, name)
				}
			}
			list[parts[1]] = m
		}
	}
	return list
}

// learnTypes corrects the types by what is collected, and fails where one
// of a type that its name does not tell has not been collected.
func learnTypes(t *testing.T, list map[string]described, all ...*prometheus.Registry) {
	t.Helper()
	collected := map[string]bool{}
	for _, registry := range all {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			m := list[f.GetName()]
			m.kind = strings.ToLower(f.GetType().String())
			list[f.GetName()] = m
			collected[f.GetName()] = true
			if counts := m.kind == "counter"; counts != strings.HasSuffix(f.GetName(), "_total") && !strings.HasPrefix(f.GetName(), "go_") {
				t.Errorf("%s is a %s: names of counters end in _total, and no others do", f.GetName(), m.kind)
			}
		}
	}
	for name, m := range list {
		if !collected[name] && m.kind == "gauge" && strings.HasSuffix(name, "_seconds") && !strings.HasSuffix(name, "_timestamp_seconds") {
			t.Errorf("%s may be a histogram: the test has to have it collected", name)
		}
	}
}

// seed gives each metric with labels a value.
func seed(all []prometheus.Collector) {
	for _, c := range all {
		labels := func(v prometheus.Collector) []string {
			one := make(chan *prometheus.Desc, 1)
			v.Describe(one)
			names := description.FindStringSubmatch((<-one).String())[4]
			return strings.Split(names, ",")
		}
		switch v := c.(type) {
		case *prometheus.GaugeVec:
			v.WithLabelValues(labels(v)...)
		case *prometheus.CounterVec:
			v.WithLabelValues(labels(v)...)
		case *prometheus.HistogramVec:
			v.WithLabelValues(labels(v)...)
		}
	}
}

// countRequests does it once in the process, as client-go does.
var countRequests = sync.OnceValue(apiwatch.CountRequests)

// withEverything returns an agent that does everything, and was opened only: nothing of
// the machine is touched.
func withEverything(t *testing.T) (*Agent, *services) {
	t.Helper()
	client, err := apiwatch.NewClientFor(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	client.Requests = countRequests()
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	parsed := Flags(set, func(string) string { return "" })
	if err := set.Parse([]string{"--node-name=n1", "--services", "--policies", "--bgp-config=/etc/flatnet/bgp.yaml", "--loadbalancer-config=/nowhere/pools.yaml", "--state-dir=" + t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	c, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	a := newAgent(c, slog.New(slog.DiscardHandler))
	if err := a.open(features(c, client, a.shared)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	s := newServices(c, client, service.NewWatch(client, a.log), service.NewBook(), a.shared)
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	return a, s
}

// The document has every metric, as the code describes it.
func TestMetricsAreDocumented(t *testing.T) {
	a, s := withEverything(t)
	// What is told only once something has happened.
	a.metrics.duration.WithLabelValues("join").Observe(1)
	s.controller.Observe(service.Observation{Duration: time.Second})
	for _, in := range s.standIns {
		for _, path := range []string{"/healthz", "/livez"} {
			if in.flag == "services-health" {
				in.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			}
		}
	}
	requests.RequestResult.Increment(t.Context(), "200", "GET", "api")
	requests.RequestLatency.Observe(t.Context(), "GET", url.URL{Host: "api"}, time.Second)

	for _, f := range a.features {
		seed(f.Metrics)
	}
	own := describe(t, a.metrics.registry)
	learnTypes(t, own, a.metrics.registry, s.metrics)
	maps.Copy(own, describe(t, scrape{a})) // gauges, as [scrape] has nothing else
	proxy := describe(t, s.asProxy)
	learnTypes(t, proxy, s.asProxy)

	path := filepath.Join("..", "..", "docs", "metrics.md")
	want := metricsDocument(a, own, proxy)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/metrics.md is not what the code has: run go test ./pkg/agent -run TestMetricsAreDocumented -update\n%s", firstDifference(got, want))
	}
}

func firstDifference(got, want []byte) string {
	has := strings.Split(string(got), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(has) || has[i] != line {
			return fmt.Sprintf("line %d should be\n%s", i+1, line)
		}
	}
	return "it has more lines than it should"
}

// inTable makes a sentence one of a table in Markdown.
var inTable = strings.NewReplacer("|", `\|`, "<", "&lt;")

// metricsDocument is docs/metrics.md.
func metricsDocument(a *Agent, own, proxy map[string]described) []byte {
	var out bytes.Buffer
	fmt.Fprint(&out, `<!-- Made out of the code by: go test ./pkg/agent -run TestMetricsAreDocumented -update -->

# Metrics

What flatnetd tells Prometheus. [monitoring.md](monitoring.md) has a dashboard and alerts made of it, and says how to scrape it.
Those of a task that is switched off (`+"`--services`, `--policies`, `--loadbalancer-config`"+`) are not there, or tell nothing.

`)
	section := func(title, about string, list map[string]described) {
		fmt.Fprintf(&out, "## %s\n\n%s\n\n| metric | type | labels | |\n|---|---|---|---|\n", title, about)
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if m := list[name]; !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				labels := ""
				if len(m.labels) > 0 {
					labels = "`" + strings.Join(m.labels, "`, `") + "`"
				}
				fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, m.kind, labels, inTable.Replace(m.help))
			}
		}
		fmt.Fprintln(&out)
	}
	section("At --listen", "At `/metrics` of 127.0.0.1:9370 where nothing else is said, beside `go_…` and `process_…`, which are of the process.", own)
	var objects, tasks []string
	for _, f := range a.features {
		objects = append(objects, f.Repairs...)
		for _, task := range f.Tasks {
			tasks = append(tasks, task.Name)
		}
	}
	fmt.Fprintf(&out, `%s is one of %s.

%s is one of %s. Of these, join plans and applies the ways to other nodes, services looks at what
their balancing depends on, and rest gives memory back. What %s can be is in [kernel.md](kernel.md).

`, "`object`", strings.Join(objects, ", "), "`task`", strings.Join(tasks, ", "), "`feature`")
	section("At --services-metrics", "At `/metrics` of 127.0.0.1:10249 where nothing else is said, with `--services` only: those of kube-proxy's metrics that mean the same here, by its names; "+
		"[services.md](services.md#who-asks-kube-proxy) says which are left out. Here too are `go_…` and `process_…`.", proxy)
	return append(bytes.TrimRight(out.Bytes(), "\n"), 10)
}
