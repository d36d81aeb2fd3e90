// Package chart tests deploy/chart with Helm itself: that it makes what the kustomizations
// of deploy make, that every value does something, and that wrong ones are refused.
package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	kubefake "helm.sh/helm/v3/pkg/kube/fake"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"helm.sh/helm/v3/pkg/strvals"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// elsewhere is a namespace that the release is in, and flatnet is not.
const elsewhere = "kube-system"

func deploy(elements ...string) string {
	return filepath.Join(append([]string{"..", "..", "deploy"}, elements...)...)
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(deploy("chart"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// values are what helm makes of --set.
func values(t *testing.T, set string) map[string]any {
	t.Helper()
	parsed, err := strvals.Parse(set)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// configuration is a Helm with a store of its own, and a cluster that takes everything.
func configuration(t *testing.T) *action.Configuration {
	t.Helper()
	capabilities := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion("v1.35.0")
	if err != nil {
		t.Fatal(err)
	}
	capabilities.KubeVersion = *version
	return &action.Configuration{
		Releases:     storage.Init(driver.NewMemory()),
		KubeClient:   &kubefake.PrintingKubeClient{Out: io.Discard, LogOutput: io.Discard},
		Capabilities: capabilities,
		Log:          t.Logf,
	}
}

// install is `helm install flatnet deploy/chart --namespace NAMESPACE --set SET`.
func install(t *testing.T, c *action.Configuration, namespace, set string) (*release.Release, error) {
	t.Helper()
	i := action.NewInstall(c)
	i.ReleaseName, i.Namespace = "flatnet", namespace
	return i.Run(load(t), values(t, set))
}

func installed(t *testing.T, set string) *release.Release {
	t.Helper()
	r, err := install(t, configuration(t), elsewhere, set)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// objects of a text, by kind and name. A field that Kubernetes does not know is an error;
// the Operator's kinds it does not know at all.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	all := map[string]map[string]any{}
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := yaml.UnmarshalStrict(document, &object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if object == nil {
			continue
		}
		if _, _, err := strict.Decode(document, nil, nil); err != nil && !runtime.IsNotRegisteredError(err) {
			t.Fatalf("%v in\n%s", err, document)
		}
		name := fmt.Sprint(object["kind"], " ", at(object, "metadata", "name"))
		if all[name] != nil {
			t.Fatalf("%s is there twice", name)
		}
		all[name] = object
	}
}

// at is what is at the end of a path, or nil.
func at(object any, path ...string) any {
	for _, key := range path {
		fields, _ := object.(map[string]any)
		object = fields[key]
	}
	return object
}

// withoutHelm takes away what only a chart's objects have: Helm's labels, and the sum that
// makes new pods of new settings.
func withoutHelm(t *testing.T, all map[string]map[string]any) map[string]map[string]any {
	t.Helper()
	for name, object := range all {
		metadata := at(object, "metadata").(map[string]any)
		labels, _ := metadata["labels"].(map[string]any)
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"} {
			if _, is := labels[label]; !is {
				t.Errorf("%s has no label %s", name, label)
			}
			delete(labels, label)
		}
		if object["kind"] == "DaemonSet" {
			pod := at(object, "spec", "template", "metadata").(map[string]any)
			annotations, _ := pod["annotations"].(map[string]any)
			if annotations["checksum/settings"] == nil {
				t.Errorf("%s has no sum of the settings", name)
			}
			delete(annotations, "checksum/settings")
			if len(annotations) == 0 {
				delete(pod, "annotations")
			}
		}
	}
	return all
}

// kustomize is `kubectl kustomize`, of a directory below deploy or of a kustomization that
// is written down here, with paths from there.
func kustomize(t *testing.T, source string) map[string]map[string]any {
	t.Helper()
	directory := deploy(source)
	if strings.Contains(source, ":") {
		directory = deploy("kustomization-of-" + strings.ReplaceAll(t.Name(), "/", "-"))
		if err := os.Mkdir(directory, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(directory)
		if err := os.WriteFile(filepath.Join(directory, "kustomization.yaml"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, string(text))
}

// text is an object's YAML with its keys in order.
func text(t *testing.T, object any) string {
	t.Helper()
	out, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out))
}

// lines of all objects.
func lines(t *testing.T, all map[string]map[string]any) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for object := range maps.Values(all) {
		for line := range strings.Lines(text(t, object)) {
			found[strings.TrimPrefix(strings.TrimSpace(line), "- ")] = true
		}
	}
	return found
}
