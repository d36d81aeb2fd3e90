package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// kindCluster is what is used of kind's configuration, kind.x-k8s.io/v1alpha4.
type kindCluster struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Networking struct {
		DisableDefaultCNI bool   `json:"disableDefaultCNI"`
		IPFamily          string `json:"ipFamily"`
	} `json:"networking"`
	Nodes []struct {
		Role string `json:"role"`
	} `json:"nodes"`
}

// workflow is what is looked at of GitHub's.
type workflow struct {
	Env  map[string]string `json:"env"`
	Jobs map[string]struct {
		Strategy struct {
			Matrix map[string][]string `json:"matrix"`
		} `json:"strategy"`
		Steps []struct {
			Uses string `json:"uses"`
			Run  string `json:"run"`
		} `json:"steps"`
	} `json:"jobs"`
}

// inRepository reads a file of the repository, by its path there.
func inRepository(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path(t), "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readWorkflow(t *testing.T) (w workflow) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(inRepository(t, ".github/workflows/ci.yml")), &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// commands of the workflow's job kind, joined.
func (w workflow) commands() string {
	var all []string
	for _, step := range w.Jobs["kind"].Steps {
		all = append(all, step.Run)
	}
	return strings.Join(all, "\n")
}

func TestKindClusters(t *testing.T) {
	files, err := filepath.Glob(path(t, "kind", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var families []string
	for _, file := range files {
		family := strings.TrimSuffix(filepath.Base(file), ".yaml")
		families = append(families, family)
		var c kindCluster
		if err := yaml.UnmarshalStrict(read(t, "kind", filepath.Base(file)), &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var roles []string
		for _, n := range c.Nodes {
			roles = append(roles, n.Role)
		}
		got := fmt.Sprint(c.APIVersion, " ", c.Kind, " ", c.Networking, " ", roles)
		want := fmt.Sprintf("kind.x-k8s.io/v1alpha4 Cluster {true %s} [control-plane worker worker]", family)
		if got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	tested := slices.Sorted(slices.Values(readWorkflow(t).Jobs["kind"].Strategy.Matrix["family"]))
	if !slices.Equal(families, tested) {
		t.Errorf("there are clusters %s, and %s are tested", families, tested)
	}
}

// What is built, loaded and installed is one image, and every file that is named
// exists.
func TestKindCommands(t *testing.T) {
	image := only[*appsv1.DaemonSet](t, base(t)).Spec.Template.Spec.Containers[0].Image
	w := readWorkflow(t)
	if w.Env["IMAGE"] != image {
		t.Errorf("the workflow builds %s, and the manifests want %s", w.Env["IMAGE"], image)
	}
	page := inRepository(t, "docs/kind.md")
	// The network is tried as the page says, with the program of the same commit.
	for name, text := range map[string]string{"docs/kind.md": page, "the workflow": w.commands()} {
		if !regexp.MustCompile(`(?m)^ *kubectl flatnet check --nodes 0$`).MatchString(text) {
			t.Errorf("%s does not try the network", name)
		}
	}
	if !strings.Contains(w.commands(), "./cmd/kubectl-flatnet\n") {
		t.Error("the workflow does not build kubectl flatnet")
	}
	for _, pattern := range []string{`docker build .* -t (\S+) \.`, `kind load docker-image (\S+)`} {
		for name, text := range map[string]string{"docs/kind.md": page, "the workflow": strings.ReplaceAll(w.commands(), `"$IMAGE"`, image)} {
			found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
			if len(found) == 0 {
				t.Errorf("%s has no command like %s", name, pattern)
			}
			for _, match := range found {
				if match[1] != image {
					t.Errorf("%s has %q, and the manifests want %s", name, match[0], image)
				}
			}
		}
	}
	files := regexp.MustCompile(`\bdeploy/[\w./-]*\w`).FindAllString(page+w.commands(), -1)
	for _, fabric := range w.Jobs["kind"].Strategy.Matrix["fabric"] {
		if fabric != "auto" {
			files = append(files, "deploy/overlays/"+fabric)
		}
	}
	for _, file := range files {
		if _, err := os.Stat(filepath.Join(path(t), "..", file)); err != nil {
			t.Errorf("named is %v", err)
		}
	}
}

// The same commit is tested with the same programs next year: actions by commit,
// the node image by digest, and Kubernetes' tests of the node image's version.
func TestWorkflowIsPinned(t *testing.T) {
	w := readWorkflow(t)
	node := regexp.MustCompile(`^kindest/node:(v\d+\.\d+\.\d+)@sha256:[0-9a-f]{64}$`).FindStringSubmatch(w.Env["NODE_IMAGE"])
	if node == nil || node[1] != w.Env["KUBERNETES"] {
		t.Errorf("the node image is %s, and the tests are those of %s", w.Env["NODE_IMAGE"], w.Env["KUBERNETES"])
	}
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(w.Env["KIND"]) {
		t.Errorf("kind is %s", w.Env["KIND"])
	}
	actions := 0
	for name, job := range w.Jobs {
		for _, step := range job.Steps {
			if step.Uses == "" {
				continue
			}
			actions++
			if !regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`).MatchString(step.Uses) {
				t.Errorf("job %s uses %s, which is no commit", name, step.Uses)
			}
		}
	}
	if actions == 0 {
		t.Error("no action was looked at")
	}
}
