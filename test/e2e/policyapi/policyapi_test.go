// Package policyapi runs the conformance tests of sigs.k8s.io/network-policy-api, those
// of ClusterNetworkPolicy, on a cluster: kubectl's configuration says on which.
package policyapi

import (
	"bytes"
	"context"
	"flag"
	"regexp"
	"strings"
	"testing"
	"text/template"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/network-policy-api/conformance"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	kube "sigs.k8s.io/network-policy-api/conformance/utils/kubernetes"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

var (
	image = flag.String("image", "registry.k8s.io/e2e-test-images/agnhost:2.45", "that the pods of the tests run")
	sctp  = flag.Bool("sctp", true, "whether the kernel has SCTP: without it, the servers for it are not started and their tests left out")
)

// What upstream calls these is in features.go of its suite. Its tests of nodes as peers
// want a pod kept away from its own node, too, if its server is there: from a pod to its
// own node everything passes, as NetworkPolicy has it.
var beyondTheStandard = []suite.SupportedFeature{suite.SupportClusterNetworkPolicyNamedPorts}

// sends are tests of SCTP, and those of which each part sends by all protocols.
var sends = regexp.MustCompile(`SCTP|Gress$|InlineCIDRPeers$|PortRange$`)

func TestConformance(t *testing.T) {
	rest := config.GetConfigOrDie()
	c, err := client.New(rest, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Install(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	// The suite would start its own pods as soon as it has its feature, with an image of
	// its own and with servers that end at once where there is no SCTP; so it gets it later.
	s := suite.New(suite.Options{
		Client: c, ClientSet: set, KubeConfig: *rest, CleanupBaseResources: true,
		ExemptFeatures: sets.New(suite.SupportClusterNetworkPolicy),
	})
	s.Setup(t)
	s.SupportedFeatures = sets.New(append(beyondTheStandard, suite.SupportClusterNetworkPolicy)...)
	namespaces, statefulSets := start(t, c, s.HostNetworkPorts)
	kube.NamespacesMustBeReady(t, c, s.TimeoutConfig, namespaces, statefulSets)
	for _, test := range tests.ConformanceTests {
		t.Run(test.ShortName, func(t *testing.T) {
			if !*sctp && sends.MatchString(test.ShortName) {
				t.Skip("the kernel has no SCTP")
			}
			test.Run(t, s)
		})
	}
}

// start makes upstream's namespaces and StatefulSets, and has them removed in the end.
func start(t *testing.T, c client.Client, hostPorts []int) (namespaces, statefulSets []string) {
	raw, err := conformance.Manifests.ReadFile("base/manifests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := template.New("base").Parse(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := page.Execute(&text, kube.TemplateData{HostNetworkPorts: hostPorts}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	decoder := serializer.NewCodecFactory(scheme.Scheme).UniversalDeserializer()
	for _, document := range strings.Split(text.String(), "\n---\n") {
		if strings.TrimSpace(document) == "" || strings.TrimSpace(document) == "---" {
			continue
		}
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		made := object.(client.Object)
		switch o := object.(type) {
		case *corev1.Namespace:
			t.Cleanup(func() {
				if err := c.Delete(context.Background(), made); err != nil {
					t.Errorf("removing namespace %s: %v", made.GetName(), err)
				}
			})
		case *appsv1.StatefulSet:
			namespaces, statefulSets = append(namespaces, o.Namespace), append(statefulSets, o.Name)
			adapt(&o.Spec.Template.Spec)
		}
		if err := c.Create(ctx, made); err != nil {
			t.Fatalf("making %s %s: %v", object.GetObjectKind().GroupVersionKind().Kind, made.GetName(), err)
		}
	}
	return namespaces, statefulSets
}

// adapt has containers run the image that the cluster has, which may have no shell.
func adapt(pod *corev1.PodSpec) {
	var kept []corev1.Container
	for _, c := range pod.Containers {
		if len(c.Env) > 0 && strings.HasPrefix(c.Env[0].Name, "SERVE_SCTP") && !*sctp {
			continue
		}
		c.Image = *image
		if n := len(c.Command); n > 0 {
			c.Command = strings.Fields(c.Command[n-1])
		}
		kept = append(kept, c)
	}
	pod.Containers = kept
}
