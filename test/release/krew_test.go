package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// What krew does with the manifest: it finds the archive of each platform, with this sum, and
// in it the program and the license. Nothing is compiled here.
func TestKrew(t *testing.T) {
	b := newBuild(t)
	license, err := os.ReadFile(reference.Path(t, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range forUsers().platforms {
		if err := b.pack(forUsers(), at, map[string][]byte{"kubectl-flatnet": []byte("for " + at.String())}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.krew(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(b.out, "kubectl-flatnet-v9.8.7-krew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var plugin struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version, ShortDescription string
			Platforms                 []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, Sha256, Bin string
				Files            []struct{ From, To string }
			}
		}
	}
	if err := yaml.Unmarshal(text, &plugin); err != nil {
		t.Fatal(err)
	}
	if plugin.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || plugin.Kind != "Plugin" || plugin.Metadata.Name != "flatnet" ||
		plugin.Spec.Version != "v9.8.7" || plugin.Spec.ShortDescription == "" {
		t.Errorf("the plugin is %+v", plugin)
	}
	var found []string
	for _, p := range plugin.Spec.Platforms {
		at := platform{p.Selector.MatchLabels["os"], p.Selector.MatchLabels["arch"]}
		found = append(found, at.String())
		name, ok := strings.CutPrefix(p.URI, "https://github.com/flatnet-cni/flatnet/releases/download/v9.8.7/")
		content, err := os.ReadFile(filepath.Join(b.out, name))
		if !ok || err != nil {
			t.Errorf("%s is at %s, and %v", at, p.URI, err)
			continue
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(content)); p.Sha256 != sum {
			t.Errorf("the sum of %s is %s, and not %s", name, sum, p.Sha256)
		}
		packed, installed := unpacked(t, name, content), map[string]file{}
		for _, f := range p.Files {
			i := slices.IndexFunc(packed, func(in file) bool { return in.name == f.From })
			if i < 0 || f.To != "." {
				t.Errorf("%s has no %s for %q", name, f.From, f.To)
				continue
			}
			installed[path.Base(f.From)] = packed[i]
		}
		if program := installed[p.Bin]; string(program.content) != "for "+at.String() || program.mode != 0o755 {
			t.Errorf("%s of %s is %q with mode %o", p.Bin, at, program.content, program.mode)
		}
		if (at.os == "windows") != (strings.HasSuffix(p.Bin, ".exe") && strings.HasSuffix(name, ".zip")) {
			t.Errorf("on %s, %s is in %s", at, p.Bin, name)
		}
		if !bytes.Equal(installed["LICENSE"].content, license) {
			t.Errorf("%s has no license", name)
		}
	}
	if want := []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64"}; !slices.Equal(found, want) {
		t.Errorf("krew finds it for %v, want %v", found, want)
	}
}
