package images

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"
)

// Image is a container image.
type Image struct {
	// Tags are the names that it is known by, with registry.
	Tags   []string
	Layers []*Layer
	// Entrypoint and Cmd are what a container runs: the first followed by the second.
	Entrypoint, Cmd []string
	Env             []string
}

// made is when all images say that they were made, so that the same content is
// the same image.
var made = time.Unix(0, 0).UTC()

// Write writes an archive of images, as `docker save` does. Layers that images
// share are written once.
func Write(out io.Writer, images []Image) error {
	archive := tar.NewWriter(out)
	add := func(name string, content []byte) error {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: made}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("writing archive of images: %w", err)
		}
		if _, err := archive.Write(content); err != nil {
			return fmt.Errorf("writing archive of images: %w", err)
		}
		return nil
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	digests := map[*Layer]string{}
	for _, image := range images {
		one := entry{RepoTags: image.Tags}
		var differences []string
		for _, layer := range image.Layers {
			digest, written := digests[layer]
			if !written {
				content, sum, err := layer.bytes()
				if err != nil {
					return fmt.Errorf("image %s: %w", image.Tags[0], err)
				}
				if err := add(sum+"/layer.tar", content); err != nil {
					return err
				}
				digest = sum
				digests[layer] = sum
			}
			one.Layers = append(one.Layers, digest+"/layer.tar")
			differences = append(differences, "sha256:"+digest)
		}
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux", "created": made,
			"config": map[string]any{
				"Entrypoint": image.Entrypoint, "Cmd": image.Cmd, "WorkingDir": "/",
				"Env": append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, image.Env...),
			},
			"rootfs":  map[string]any{"type": "layers", "diff_ids": differences},
			"history": []any{},
		})
		if err != nil {
			return err
		}
		one.Config = fmt.Sprintf("%x.json", sha256.Sum256(config))
		if err := add(one.Config, config); err != nil {
			return err
		}
		manifest = append(manifest, one)
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := add("manifest.json", raw); err != nil {
		return err
	}
	return archive.Close()
}
