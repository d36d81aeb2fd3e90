package deploy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/pkg/agent"
)

// The chart itself is tested with Helm, in test/chart. Here is what concerns flatnetd and
// the documentation.

// value is one of the chart's, with its comment.
type value struct{ path, usual, comment string }

// chartValues reads values.yaml. A map with a comment of its own is one value.
func chartValues(t *testing.T) []value {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal(read(t, "chart", "values.yaml"), &document); err != nil {
		t.Fatal(err)
	}
	var walk func(*yaml.Node, string) []value
	walk = func(m *yaml.Node, prefix string) (all []value) {
		for i := 0; i < len(m.Content); i += 2 {
			key, v := m.Content[i], m.Content[i+1]
			comment := strings.TrimSpace(strings.ReplaceAll("\n"+key.HeadComment, "\n#", ""))
			if comment == "" && v.Kind == yaml.MappingNode {
				all = append(all, walk(v, prefix+key.Value+".")...)
				continue
			}
			if comment == "" {
				t.Errorf("value %s%s has no comment", prefix, key.Value)
			}
			all = append(all, value{prefix + key.Value, usual(t, v), comment})
		}
		return all
	}
	return walk(document.Content[0], "")
}

// usual is a default on one line.
func usual(t *testing.T, v *yaml.Node) string {
	t.Helper()
	if v.Kind == yaml.ScalarNode {
		return v.Value
	}
	var inline func(*yaml.Node)
	inline = func(n *yaml.Node) {
		n.Style = yaml.FlowStyle
		for _, c := range n.Content {
			inline(c)
		}
	}
	inline(v)
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// What is made of them is that of other files.
func TestFilesOfTheChart(t *testing.T) {
	for _, name := range []string{"rules.yaml", "dashboard.json"} {
		want := read(t, "monitoring", name)
		if *update {
			if err := os.WriteFile(path(t, "chart", "files", name), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(read(t, "chart", "files", name), want) {
			t.Errorf("deploy/chart/files/%s is not deploy/monitoring/%[1]s: run go test ./test/deploy -update", name)
		}
	}
}

var aboutFlag = regexp.MustCompile(`^--([a-z0-9-]+): `)

// withoutValue are flags that the chart sets itself or that clusters have no use for.
func withoutValue() []string {
	return []string{
		"node-name", "nodes-file", "kubeconfig", "policies-dir", // Kubernetes says all that
		"plugins-dir",                              // is in the image
		"state-dir", "sysctl-dir", "policies-file", // are mounted
	}
}

// Each of flatnetd's flags has a value, whose default is that of deploy/base or the flag's.
func TestValuesAreFlags(t *testing.T) {
	set := flag.NewFlagSet("flatnetd", flag.ContinueOnError)
	agent.Flags(set, func(string) string { return "" })
	settings := only[*corev1.ConfigMap](t, base(t)).Data
	seen := withoutValue()
	for _, v := range chartValues(t) {
		m := aboutFlag.FindStringSubmatch(v.comment)
		if m == nil {
			continue
		}
		f := set.Lookup(m[1])
		if f == nil || slices.Contains(seen, m[1]) {
			t.Errorf("value %s is about --%s, which is no flag or has another value", v.path, m[1])
			continue
		}
		seen = append(seen, m[1])
		want, is := settings[agent.Variable(m[1])]
		if !is {
			want = f.DefValue
		}
		if !same(m[1], v.usual, want) {
			t.Errorf("value %s is %q, and --%s %q", v.path, v.usual, m[1], want)
		}
	}
	for _, name := range flags() {
		if !slices.Contains(seen, name) {
			t.Errorf("the chart has no value for --%s", name)
		}
	}
}

// same tells whether a value is what a flag says in its own way.
func same(flagName, value, ofFlag string) bool {
	a, errA := time.ParseDuration(value)
	b, errB := time.ParseDuration(ofFlag)
	switch {
	case errA == nil && errB == nil:
		return a == b
	case flagName == "listen":
		return strings.HasSuffix(ofFlag, ":"+value)
	case value == "[]":
		return ofFlag == ""
	}
	return value == ofFlag
}

// The table in docs/helm.md is made out of values.yaml.
func TestValuesAreDocumented(t *testing.T) {
	const begin, end = "<!-- made out of deploy/chart/values.yaml by `go test ./test/deploy -update` -->\n", "<!-- end -->\n"
	table := "| value | default | |\n|---|---|---|\n"
	for _, v := range chartValues(t) {
		usual := ""
		if v.usual != "" {
			usual = "`" + v.usual + "`"
		}
		comment := regexp.MustCompile(`--[a-z0-9-]+|\b(?:deploy|docs)/\S+\w|\{[^}]*\}`).ReplaceAllString(v.comment, "`$0`")
		table += fmt.Sprintf("| `%s` | %s | %s |\n", v.path, usual, strings.ReplaceAll(comment, "``", "`"))
	}
	page := inRepository(t, "docs/helm.md")
	before, rest, is := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !is || !closed {
		t.Fatalf("docs/helm.md has no place for the values")
	}
	want := before + begin + table + end + after
	if *update {
		if err := os.WriteFile(filepath.Join(path(t), "..", "docs", "helm.md"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if page != want {
		t.Error("docs/helm.md has other values than deploy/chart/values.yaml: run go test ./test/deploy -update")
	}
}
