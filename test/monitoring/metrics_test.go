package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// ofTarget are the labels that Prometheus gives what it scrapes, as podmonitor.yaml and
// prometheus.yaml have it do.
var ofTarget = []string{"job", "instance", "node", "namespace", "pod"}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(reference.Path(t, elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// known returns the labels of each metric by its name: of flatnetd's, which pkg/agent
// sees to that docs/metrics.md has, of the process's, and of Prometheus' own.
func known(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{"up": nil}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	label := regexp.MustCompile("`(\\w+)`")
	for _, m := range row.FindAllStringSubmatch(read(t, "docs", "metrics.md"), -1) {
		var labels []string
		for _, l := range label.FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		all[m[1]] = labels
		if m[2] == "histogram" {
			delete(all, m[1])
			all[m[1]+"_bucket"] = append(slices.Clone(labels), "le")
			all[m[1]+"_sum"], all[m[1]+"_count"] = labels, labels
		}
	}
	if len(all) < 50 {
		t.Fatalf("docs/metrics.md has %d metrics: %v", len(all), all)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		all[f.GetName()] = nil
	}
	return all
}

// check fails where a query, or a text about its result, names what is not there.
func check(t *testing.T, known map[string][]string, where, expression string, labelsOfText []string) {
	t.Helper()
	q := parse(expression)
	if len(q.selectors) == 0 {
		t.Errorf("%s asks for nothing: %s", where, expression)
	}
	there := slices.Clone(ofTarget)
	for _, s := range q.selectors {
		labels, is := known[s.metric]
		if !is {
			t.Errorf("%s asks for %s, which flatnetd does not have: docs/metrics.md lists what it has", where, s.metric)
		}
		there = append(there, labels...)
		for _, l := range s.labels {
			if !slices.Contains(append(slices.Clone(ofTarget), labels...), l) {
				t.Errorf("%s asks for %s by label %s, which that does not have", where, s.metric, l)
			}
		}
	}
	for _, l := range append(q.labels, labelsOfText...) {
		if !slices.Contains(there, l) {
			t.Errorf("%s has label %s, which none of its metrics has: %s", where, l, expression)
		}
	}
}

// The documentation names no metric and no label that is not there.
func TestDocumentation(t *testing.T) {
	known := known(t)
	// flatnet_name, flatnet_name{label}, flatnet_name{label="value"}, and flatnet_part… of several.
	mention := regexp.MustCompile(`\b(flatnet_[a-z_]+)(…?)(\{[^}]*\})?`)
	pages, err := filepath.Glob(reference.Path(t, "docs", "*.md"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("pages %v, %v", pages, err)
	}
	found := 0
	for _, page := range append(pages, reference.Path(t, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mention.FindAllStringSubmatch(string(text), -1) {
			found++
			if m[2] != "" {
				continue
			}
			metric := m[1]
			if metric == "flatnet_look" || metric == "flatnet_learn" {
				continue // filters of tc
			}
			if _, histogram := known[metric+"_bucket"]; histogram {
				metric += "_bucket"
			}
			if _, is := known[metric]; !is {
				t.Errorf("%s names %s, which flatnetd does not have", filepath.Base(page), m[0])
				continue
			}
			if m[3] != "" && !strings.Contains(m[3], "=") {
				m[3] = strings.ReplaceAll(strings.ReplaceAll(m[3], ",", `="",`), "}", `=""}`)
			}
			check(t, known, filepath.Base(page), metric+m[3], nil)
		}
	}
	if found < 20 {
		t.Errorf("%d mentions of metrics were found", found)
	}
}
