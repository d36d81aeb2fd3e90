package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// unreleased are the versions that Chart.yaml has in a checkout.
const unreleased = "\nversion: 0.0.0\nappVersion: latest\n"

var semantic = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?)$`)

// semanticVersion is a version as Helm and krew want it, without the v; what is none is built of
// something that is not released.
func semanticVersion(version string) string {
	if m := semantic.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0+" + strings.ReplaceAll(version, "_", "-")
}

// chart writes deploy/chart as `helm package` would, with the version in it.
func (b build) chart() error {
	files, err := b.below(filepath.Join(b.source.directory, "deploy", "chart"), "flatnet")
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.name == "flatnet/Chart.yaml" && !bytes.Contains(f.content, []byte(fmt.Sprintf("appVersion: %q\n", b.version))) {
			return fmt.Errorf("deploy/chart/Chart.yaml has not the lines %q", strings.TrimSpace(unreleased))
		}
	}
	return b.archive("flatnet-"+semanticVersion(b.version)+".tgz", files)
}
