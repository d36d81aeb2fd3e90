package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// repository is where releases are.
const repository = "https://github.com/flatnet-cni/flatnet"

// krewName is the name of the file for krew, which is no manifest for kubectl to apply.
func krewName(version string) string { return "kubectl-flatnet-" + version + "-krew.yaml" }

// krew writes what krew, which installs plugins of kubectl, has to know of the archives:
// https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest
func (b build) krew() error {
	plugin := forUsers()
	var platforms []any
	for _, at := range plugin.platforms {
		archive := plugin.archive(b.version, at)
		content, err := os.ReadFile(filepath.Join(b.out, archive))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		binary, directory := at.executable("kubectl-flatnet"), plugin.directory(b.version, at)
		platforms = append(platforms, map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"os": at.os, "arch": at.architecture}},
			"uri":      repository + "/releases/download/" + b.version + "/" + archive,
			"sha256":   hex.EncodeToString(sum[:]),
			"files": []any{
				map[string]any{"from": directory + "/" + binary, "to": "."},
				map[string]any{"from": directory + "/LICENSE", "to": "."},
			},
			"bin": binary,
		})
	}
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
		"kind":       "Plugin",
		"metadata":   map[string]any{"name": "flatnet"},
		"spec": map[string]any{
			"version":          "v" + semanticVersion(b.version),
			"homepage":         repository + "/blob/" + b.version + "/docs/kubectl.md",
			"shortDescription": "See the flatnet pod network on all nodes",
			"description": "Shows how flatnet, a pod network, is on every node of the cluster, finds out why\n" +
				"one pod does not reach another, tries whether pods of all nodes reach each other,\n" +
				"and collects what is needed to find a fault.\n",
			"platforms": platforms,
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, krewName(b.version)), manifest, 0o644)
}
