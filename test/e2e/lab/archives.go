package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/flatnet-cni/flatnet/test/e2e/images"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
)

// archive writes the images of a kind, and returns the file.
func (l *Lab) archive(kind string) (string, error) {
	k, err := programs.FindKubernetes(filepath.Join(l.Repository, "test", "e2e"), l.plan.Options.Kubernetes)
	if err != nil {
		return "", err
	}
	sources := images.Sources{Flatnet: filepath.Join(l.Repository, "bin"), Kubernetes: l.Binaries(), Names: k.Images}
	all := images.Network(sources)
	if kind == "applications" {
		if all, err = images.Applications(sources); err != nil {
			return "", err
		}
	}
	path := filepath.Join(l.Directory, kind+".tar")
	file, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("writing images: %w", err)
	}
	defer file.Close()
	if err := images.Write(file, all); err != nil {
		return "", err
	}
	return path, file.Close()
}
