package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// newBuild is one of this source.
func newBuild(t *testing.T) build {
	return build{source: source{directory: reference.Path(t), time: time.Unix(1, 0)}, version: "v9.8.7", out: t.TempDir()}
}

func TestCompare(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write := func(directory, name, content string) {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(a, "same", "1")
	write(b, "same", "1")
	if differ, err := compare(a, b); err != nil || differ != nil {
		t.Errorf("differ %v, %v, want none", differ, err)
	}
	write(a, "other", "1")
	write(b, "other", "2")
	write(a, "only a", "")
	write(b, "only b", "1")
	if differ, err := compare(a, b); err != nil || !slices.Equal(differ, []string{"only a", "only b", "other"}) {
		t.Errorf("differ %v, %v", differ, err)
	}
}

func TestNotes(t *testing.T) {
	const changelog = "# Changelog\n\nSee [x](y).\n\n## [Unreleased]\n\n## [1.2.0] - 2026-12-01\n\n### Added\n\n- A [page](docs/a.md#b), [web](https://example.com)\n\n## [1.1.0]\n\n- Old\n"
	got, err := notesOf(changelog, "v1.2.0")
	if want := "### Added\n\n- A [page](https://github.com/flatnet-cni/flatnet/blob/v1.2.0/docs/a.md#b), [web](https://example.com)\n"; err != nil || got != want {
		t.Errorf("notes %q, %v, want %q", got, err, want)
	}
	if got, err := notesOf(changelog, "1.1.0"); err != nil || got != "- Old\n" {
		t.Errorf("the last section is %q, %v", got, err)
	}
	for version, want := range map[string]string{"v1.3.0": "no section [1.3.0]", "Unreleased": "says nothing"} {
		if _, err := notesOf(changelog, version); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("notes of %s: %v, want %q", version, err, want)
		}
	}
	text, err := os.ReadFile(reference.Path(t, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notesOf(string(text), "Unreleased"); err != nil {
		t.Error(err)
	}
}

// The one file and the archive have the version's image, and nothing else is different from deploy/.
func TestManifests(t *testing.T) {
	b := newBuild(t)
	if err := b.manifests(); err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(filepath.Join(b.out, "flatnet-v9.8.7.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(plain, []byte("image: ghcr.io/flatnet-cni/flatnet:v9.8.7\n")) || bytes.Contains(plain, []byte(latest)) {
		t.Error("flatnet-v9.8.7.yaml has not the image of v9.8.7")
	}
	if err := b.sums(); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(b.out, sumsName))
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{64}  flatnet-v9\.8\.7-manifests\.tar\.gz\n[0-9a-f]{64}  flatnet-v9\.8\.7\.yaml\n$`).Match(sums) {
		t.Errorf("sums are %s, %v", sums, err)
	}
}

func TestVersions(t *testing.T) {
	for version, valid := range map[string]bool{"v1.2.3": true, "v1.2.3-rc.1": true, "1a3cf2a-dirty": true, "": false, "v1/2": false, "-x": false, "v1 2": false} {
		if err := checkVersion(version); (err == nil) != valid {
			t.Errorf("version %q: %v", version, err)
		}
	}
	if toolchain, err := toolchainOf(reference.Path(t, "deploy", "image", "Dockerfile")); err != nil || !regexp.MustCompile(`^go1\.\d+\.\d+$`).MatchString(toolchain) {
		t.Errorf("the toolchain is %q, %v", toolchain, err)
	}
}

// The binaries of the release are built by the words that the image's are.
func TestImageIsBuiltLikewise(t *testing.T) {
	dockerfile, err := os.ReadFile(reference.Path(t, "deploy", "image", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"go build -trimpath -buildvcs=false", `-ldflags "-s -w -X main.version=$VERSION"`, "CGO_ENABLED=0"} {
		if !bytes.Contains(dockerfile, []byte(words)) {
			t.Errorf("the Dockerfile does not build with %s", words)
		}
	}
	if strings.Contains(string(dockerfile), "for binary in flatnetd flatnet flatnet-ipam flatnet-bgp;") != (len(forNodes().binaries) == 4) {
		t.Error("the Dockerfile builds other binaries")
	}
}

// What others make runs in the workflow by its content alone, and nothing may more than
// it needs.
func TestWorkflow(t *testing.T) {
	text, err := os.ReadFile(reference.Path(t, ".github", "workflows", "release.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var w struct {
		Env         map[string]string `json:"env"`
		Permissions map[string]string `json:"permissions"`
		Jobs        map[string]struct {
			Permissions map[string]string `json:"permissions"`
			Steps       []struct {
				Uses string         `json:"uses"`
				With map[string]any `json:"with"`
			} `json:"steps"`
		} `json:"jobs"`
	}
	if err := yaml.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	if w.Env["IMAGE"] != image || len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
		t.Errorf("the image is %q and everybody has the permissions %v", w.Env["IMAGE"], w.Permissions)
	}
	// Whatever the build leaves, with the list of sums that is signed.
	for _, words := range []string{" SHA256SUMS.sigstore.json SHA256SUMS\n", ` --repo "$GITHUB_REPOSITORY" bin/release/*` + "\n"} {
		if !bytes.Contains(text, []byte(words)) {
			t.Errorf("the workflow lacks %q", words)
		}
	}
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`)
	for name, job := range w.Jobs {
		for _, s := range job.Steps {
			if s.Uses != "" && !pinned.MatchString(s.Uses) {
				t.Errorf("job %s uses %s, by a name that its owner can change", name, s.Uses)
			}
			if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != false {
				t.Errorf("job %s keeps the token in its checkout", name)
			}
		}
		for _, right := range []string{"packages", "contents"} {
			writes := map[string][]string{"packages": {"image", "sign"}, "contents": {"publish"}}[right]
			if (job.Permissions[right] == "write") != slices.Contains(writes, name) {
				t.Errorf("job %s has %s: %q", name, right, job.Permissions[right])
			}
		}
	}
}
