package main

import (
	"fmt"
	"regexp"
	"strings"
)

// wanted are the images that upstream's tests of the network start, by the names
// that they have in k8s.io/kubernetes/test/utils/image; some versions have not all.
var wanted = []string{"Agnhost", "AgnhostPrev", "BusyBox", "DistrolessIptables", "GlibcDnsTesting", "JessieDnsutils", "Nginx", "NginxNew", "Pause", "RegressionIssue74839"}

var configured = regexp.MustCompile(`configs\[(\w+)\]\s*=\s*Config\{list\.(\w+), "([^"]+)", "([^"]+)"\}`)

// registries are where upstream's lists of registries lead to.
var registries = map[string]string{
	"PromoterE2eRegistry": "registry.k8s.io/e2e-test-images",
	"BuildImageRegistry":  "registry.k8s.io/build-image",
	"GcRegistry":          "registry.k8s.io",
}

// references are the images that a version's tests want, a line each: name and
// reference. source is that version's test/utils/image/manifest.go.
func references(source string) (string, error) {
	found := map[string]string{}
	for _, match := range configured.FindAllStringSubmatch(source, -1) {
		if registry, known := registries[match[2]]; known {
			found[match[1]] = registry + "/" + match[3] + ":" + match[4]
		}
	}
	var text strings.Builder
	for _, name := range wanted {
		if reference, is := found[name]; is {
			fmt.Fprintf(&text, "%s %s\n", name, reference)
		}
	}
	for _, name := range []string{"Agnhost", "BusyBox", "Pause"} {
		if found[name] == "" {
			return "", fmt.Errorf("the list of images in Kubernetes has no %s: its layout has changed", name)
		}
	}
	return text.String(), nil
}
