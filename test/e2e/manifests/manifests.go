// Package manifests holds the objects that a cluster has before anybody uses it.
package manifests

import (
	_ "embed"
	"fmt"
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

// WithoutProxy is a kustomization over the one in the directory base: flatnet
// balances Services, and is told where the API server is.
func WithoutProxy(c plan.Cluster, base, component string) string {
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
    metadata: {name: flatnet, namespace: flatnet}
    data: {KUBERNETES_SERVICE_HOST: "%s", KUBERNETES_SERVICE_PORT: "%d"}
`, base, component, c.API(), plan.APIPort)
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
