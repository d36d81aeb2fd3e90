package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Where the pods listen, and what they are found by.
const (
	tcpPort     = 8080
	udpPort     = 8081
	serviceName = "all"
	trialName   = "flatnet-check"
	trialLabel  = "app.kubernetes.io/name=" + trialName
)

// Which of a node's two pods one is, by its label.
const (
	componentLabel  = "app.kubernetes.io/component"
	firstComponent  = "first"
	secondComponent = "second"
)

// place is where a pod is made. The first pod of a node asks all others' and is asked by
// them; the second is asked by the first alone, since the way between two pods of one node
// leads over no other.
type place struct {
	site
	second bool
}

// words name the pod by its node.
func (p place) words() string {
	if p.second {
		return "its second pod"
	}
	return "its pod"
}

// twoOn are the places on some nodes: the first of each, and then the second of each.
func twoOn(chosen []site) (all []place) {
	for _, second := range []bool{false, true} {
		for _, s := range chosen {
			all = append(all, place{s, second})
		}
	}
	return all
}

// tried is a place, with the pod that is tried there.
type tried struct {
	place
	Pod       string
	Addresses []netip.Addr
	// Failure is why there is no pod to try.
	Failure string
}

func (t *trial) makeNamespace(ctx context.Context, name string) error {
	_, err := kind[v1.Namespace](t.client, "namespaces", "").Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"app.kubernetes.io/name": trialName},
	}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making namespace %s for the pods: %w", name, err)
	}
	return nil
}

// removeNamespace removes it with all that is in it, and does not wait for that.
func (c *client) removeNamespace(ctx context.Context, name string) error {
	err := kind[v1.Namespace](c, "namespaces", "").Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// makePods makes a pod in each place, and a Service over the first of each node.
func (t *trial) makePods(ctx context.Context, namespace string, places []place) error {
	_, err := kind[v1.Service](t.client, "services", namespace).Create(ctx, &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName},
		Spec: v1.ServiceSpec{
			Selector: map[string]string{"app.kubernetes.io/name": trialName, componentLabel: firstComponent},
			Ports:    []v1.ServicePort{{Port: tcpPort, TargetPort: intstr.FromInt32(tcpPort)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making a Service: %w", err)
	}
	pods := kind[v1.Pod](t.client, "pods", namespace)
	var mu sync.Mutex
	var failure error
	atOnce(ctx, len(places), t.asker.parallel, func(i int) {
		p := t.pod(podOf(i), places[i])
		for {
			_, err := pods.Create(ctx, p, metav1.CreateOptions{})
			if err == nil {
				return
			}
			// The service account of a new namespace comes a little later. No other reason goes
			// away by itself.
			if !apierrors.IsForbidden(err) || !accountMissing(err) || !pause(ctx, time.Second) {
				mu.Lock()
				defer mu.Unlock()
				failure = fmt.Errorf("making a pod for node %s: %w", places[i].Node, err)
				return
			}
		}
	})
	if failure == nil && ctx.Err() != nil {
		failure = context.Cause(ctx)
	}
	return failure
}

func podOf(i int) string { return fmt.Sprintf("pod-%d", i) }

// pod is one that every Pod Security Standard allows.
func (t *trial) pod(name string, at place) *v1.Pod {
	component := firstComponent
	if at.second {
		component = secondComponent
	}
	yes, no, user, grace := true, false, int64(1000), int64(0)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": trialName, componentLabel: component}},
		Spec: v1.PodSpec{
			NodeName: at.Node, TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}},
			SecurityContext: &v1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []v1.Container{{
				Name: "agnhost", Image: t.image,
				Args:            []string{"netexec", fmt.Sprintf("--http-port=%d", tcpPort), fmt.Sprintf("--udp-port=%d", udpPort)},
				SecurityContext: &v1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}}},
				ReadinessProbe: &v1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, ProbeHandler: v1.ProbeHandler{
					HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(tcpPort)},
				}},
			}},
		},
	}
}

// await waits until all pods are ready, or have had the time for it. A pod that is not is
// a failure of its node; that none is, is one of all.
func (t *trial) await(ctx context.Context, namespace string, places []place) ([]tried, error) {
	all := make([]tried, len(places))
	end := time.Now().Add(t.wait)
	for said := -1; ; {
		ready := 0
		for i, at := range places {
			all[i] = tried{place: at, Pod: podOf(i), Failure: at.words() + " is gone"}
		}
		err := t.client.pods(ctx, namespace, trialLabel, func(p *v1.Pod) {
			i := slices.IndexFunc(all, func(x tried) bool { return x.Pod == p.Name })
			if i < 0 {
				return
			}
			all[i].Addresses = podAddresses(p)
			if why := unreadyWords(p); why != "" {
				all[i].Failure = all[i].words() + " is not ready: " + why
				return
			}
			all[i].Failure = ""
			ready++
		})
		if err != nil {
			return nil, err
		}
		if ready != said {
			said = ready
			fmt.Fprintf(t.progress, "%d of %s ready\n", ready, counted(len(places), "pod"))
		}
		if ready == len(places) || time.Now().After(end) {
			return all, nil
		}
		if !pause(ctx, time.Second) {
			return nil, fmt.Errorf("waiting for pods: %w", context.Cause(ctx))
		}
	}
}

// unreadyWords say why a pod is not ready, "" where it is.
func unreadyWords(p *v1.Pod) string {
	if podReady(p) {
		return ""
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Waiting != nil {
			return sentence(c.State.Waiting.Reason, c.State.Waiting.Message)
		}
	}
	return sentence(string(p.Status.Phase), p.Status.Message)
}

// pause waits; false where ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// accountMissing reports whether a pod is refused because its namespace is too new.
func accountMissing(err error) bool {
	return strings.Contains(err.Error(), "error looking up service account")
}
