package main

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// The chart is an archive as Helm wants it, of a version that Helm takes for one.
func TestChart(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "v1.2.3-4-gabcdef0-dirty": "1.2.3-4-gabcdef0-dirty", "0123456": "0.0.0+0123456", "a_b": "0.0.0+a-b",
	} {
		if got := semanticVersion(version); got != want {
			t.Errorf("the chart of %s has version %s, want %s", version, got, want)
		}
	}
	b := newBuild(t)
	if err := b.chart(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(b.out, "flatnet-9.8.7.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range unpacked(t, "flatnet-9.8.7.tgz", content) {
		files[f.name] = f.content
	}
	var about struct{ Name, Version, AppVersion string }
	if err := yaml.Unmarshal(files["flatnet/Chart.yaml"], &about); err != nil {
		t.Fatal(err)
	}
	if about.Name != "flatnet" || about.Version != "9.8.7" || about.AppVersion != "v9.8.7" {
		t.Errorf("Chart.yaml says %+v", about)
	}
	for _, name := range []string{"values.yaml", "values.schema.json", "templates/daemonset.yaml", "files/dashboard.json"} {
		if len(files["flatnet/"+name]) == 0 {
			t.Errorf("the chart has no %s", name)
		}
	}
}
