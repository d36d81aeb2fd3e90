// Package manifests holds the objects that a cluster has before anybody uses it.
package manifests

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/flatnet-cni/flatnet/test/e2e/images"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

//go:embed coredns.yaml
var coreDNS string

// CoreDNS is the cluster's DNS server.
func CoreDNS(c plan.Cluster) (string, error) {
	t, err := template.New("coredns").Parse(coreDNS)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, map[string]string{
		"Image": images.CoreDNS, "Env": apiEnvironment(c), "ClusterIP": c.DNS[0].String(),
		"ClusterIPs": `"` + strings.ReplaceAll(plan.Join(c.DNS), ",", `", "`) + `"`,
	})
	return text.String(), err
}

// apiEnvironment tells a pod where the API server is if nothing serves its
// ClusterIP.
func apiEnvironment(c plan.Cluster) string {
	if c.Options.Proxy != "none" {
		return ""
	}
	return fmt.Sprintf(`[{name: KUBERNETES_SERVICE_HOST, value: "%s"}, {name: KUBERNETES_SERVICE_PORT, value: "%d"}]`, c.API(), plan.APIPort)
}

// Over is a kustomization over the one in the directory base, with components and with
// settings of flatnetd's.
func Over(base string, components []string, settings map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- %s\n", base)
	if len(components) > 0 {
		fmt.Fprintf(&text, "components:\n- %s\n", strings.Join(components, "\n- "))
	}
	text.WriteString("patches:\n- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: flatnet, namespace: flatnet}\n    data:\n")
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "      %s: %q\n", key, settings[key])
	}
	return text.String()
}

// WithPool is a kustomization over the one in the directory base: flatnet gives addresses
// of a pool to Services, and nodes answer for them at eth0.
func WithPool(base, component, name string, ranges []string) string {
	return fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- %s
components:
- %s
patches:
- patch: |
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: flatnet-loadbalancer, namespace: flatnet}
    data:
      pools.yaml: |
        defaultClass: true
        pools:
        - name: %s
          addresses: ["%s"]
          layer2: {interfaces: [eth0]}
`, base, component, name, strings.Join(ranges, `", "`))
}
