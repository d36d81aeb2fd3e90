package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unpack writes a layer's files to a directory, as a container runtime does.
func unpack(t *testing.T, layer []byte, directory string) {
	t.Helper()
	archive := tar.NewReader(bytes.NewReader(layer))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(directory, header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		default:
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, content, os.FileMode(header.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A program of this machine runs where nothing but the layer is.
func TestLayerHasWhatAProgramIsLinkedWith(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
	program, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash to take for an example")
	}
	layer, _, err := NewLayer().Program("/usr/bin/bash", program).Link("/shell", "usr/bin/bash").bytes()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	unpack(t, layer, root)
	output, err := exec.Command("chroot", root, "/shell", "-c", "echo it runs").CombinedOutput()
	if err != nil || string(output) != "it runs\n" {
		t.Errorf("%v: %s", err, output)
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	if _, _, err := NewLayer().Program("/bin/nothing", "").bytes(); err == nil {
		t.Error("no error")
	}
	if err := Write(io.Discard, []Image{{Tags: []string{"x"}, Layers: []*Layer{NewLayer().File("/a", "/no/such/file")}}}); err == nil {
		t.Error("no error")
	}
}

// Images that share a layer find it, and it is written once.
func TestArchive(t *testing.T) {
	shared := NewLayer().Text("/etc/shared", "1", 0o644)
	var archive bytes.Buffer
	err := Write(&archive, []Image{
		{Tags: []string{"a:1", "a:2"}, Layers: []*Layer{shared, NewLayer().Text("/a", "a", 0o755)}, Entrypoint: []string{"/a"}},
		{Tags: []string{"b:1"}, Layers: []*Layer{shared}},
	})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	var names []string
	for reader := tar.NewReader(&archive); ; {
		header, err := reader.Next()
		if err != nil {
			break
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
		t.Errorf("files are written twice: %s", names)
	}
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 2 || strings.Join(manifest[0].RepoTags, " ") != "a:1 a:2" || len(manifest[0].Layers) != 2 ||
		manifest[0].Layers[0] != manifest[1].Layers[0] {
		t.Errorf("manifest %s", files["manifest.json"])
	}
	for _, image := range manifest {
		var config struct {
			Config struct{ Entrypoint []string }
			RootFS struct {
				Differences []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal(files[image.Config], &config); err != nil {
			t.Fatal(err)
		}
		for i, layer := range image.Layers {
			if files[layer] == nil || "sha256:"+strings.TrimSuffix(layer, "/layer.tar") != config.RootFS.Differences[i] {
				t.Errorf("layer %s of %s is not what the configuration says: %s", layer, image.RepoTags, config.RootFS.Differences)
			}
		}
	}
}
