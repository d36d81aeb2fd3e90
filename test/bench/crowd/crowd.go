// Package crowd makes a large cluster of namespaces, pods and NetworkPolicies, for who
// measures what it takes to keep policies in one.
package crowd

import (
	"fmt"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flatnet-cni/flatnet/pkg/policy"
)

// Node is the name of the node that is measured.
const Node = "n1"

// Crowd says how large the cluster is. Policies are spread over the namespaces, and so
// are pods; the first ones of these are on [Node].
type Crowd struct {
	Namespaces, Policies, Pods, Here int
}

// String names the cluster in reports.
func (c Crowd) String() string {
	return fmt.Sprintf("%d policies, %d pods, %d here", c.Policies, c.Pods, c.Here)
}

// The applications in each namespace, and how namespaces are labelled.
var (
	applications = [...]string{"web", "api", "database", "queue"}
	teams        = 25
)

func namespaceName(i int) string { return fmt.Sprintf("team-%03d", i) }

// Namespace is the i-th, from 0.
func (c Crowd) Namespace(i int) *v1.Namespace {
	return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), UID: types.UID(fmt.Sprintf("4e5e0000-0000-4000-8000-%012x", i)), Labels: map[string]string{
		v1.LabelMetadataName: namespaceName(i), "team": fmt.Sprintf("t%d", i%teams),
	}}}
}

// Address is that of the i-th pod.
func (c Crowd) Address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(64 + i>>16), byte(i >> 8), byte(i)})
}

// Pod is the i-th, from 0; those from c.Pods on are further ones, elsewhere. It has
// what a pod of a Deployment has for policies to look at, and what agents have to read
// past.
func (c Crowd) Pod(i int) *v1.Pod {
	app := applications[i/c.Namespaces%len(applications)]
	node := fmt.Sprintf("n%d", 2+i%5000)
	if i < c.Here {
		node = Node
	}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(i % c.Namespaces), Name: fmt.Sprintf("%s-6d4cf56db6-%05x", app, i),
			UID: types.UID(fmt.Sprintf("90d00000-0000-4000-8000-%012x", i)), CreationTimestamp: metav1.Time{Time: time.Unix(1_700_000_000+int64(i), 0)},
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "app.kubernetes.io/instance": fmt.Sprintf("%s-%d", app, i%c.Namespaces),
				"pod-template-hash": "6d4cf56db6", "tier": []string{"front", "back"}[i%2],
			},
		},
		Spec: v1.PodSpec{
			NodeName: node, ServiceAccountName: app, SchedulerName: "default-scheduler",
			Containers: []v1.Container{{
				Name: app, Image: "registry.example.org/" + app + ":1.2.3", Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: v1.ProtocolTCP}},
				Env: []v1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "DATABASE", Value: "postgres://database:5432/" + app}},
			}},
		},
		Status: v1.PodStatus{
			Phase: v1.PodRunning, PodIP: c.Address(i).String(), PodIPs: []v1.PodIP{{IP: c.Address(i).String()}}, HostIP: "172.30.0.1",
			Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}, {Type: v1.PodScheduled, Status: v1.ConditionTrue}},
		},
	}
}

// Policy is the i-th, from 0. A namespace has two: one is for every pod and lets in
// what is of the namespace, and DNS out; the other is about one application, and lets
// others in: of a team, of everybody, or from a network. With version the objects
// differ in a port.
func (c Crowd) Policy(i, version int) *networking.NetworkPolicy {
	tcp, udp := v1.ProtocolTCP, v1.ProtocolUDP
	port := func(n int) *intstr.IntOrString { p := intstr.FromInt32(int32(n)); return &p }
	name := intstr.FromString("http")
	p := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespaceName(i % c.Namespaces), Name: fmt.Sprintf("policy-%d", i/c.Namespaces), UID: types.UID(fmt.Sprintf("90110000-0000-4000-8000-%012x", i)),
	}}
	if i < c.Namespaces {
		p.Spec = networking.NetworkPolicySpec{
			PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
			Ingress: []networking.NetworkPolicyIngressRule{{
				From:  []networking.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}},
				Ports: []networking.NetworkPolicyPort{{Protocol: &tcp, Port: &name}, {Protocol: &tcp, Port: port(9000 + version)}},
			}},
			Egress: []networking.NetworkPolicyEgressRule{
				{
					To: []networking.NetworkPolicyPeer{{
						NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{v1.LabelMetadataName: namespaceName(0)}},
						PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "api"}},
					}},
					Ports: []networking.NetworkPolicyPort{{Protocol: &udp, Port: port(53)}},
				},
				{To: []networking.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}},
			},
		}
		return p
	}
	app := applications[i/c.Namespaces%len(applications)]
	if i%c.Namespaces < c.Here {
		app = applications[0] // that of the pods here
	}
	p.Spec = networking.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": app}},
		Ingress: []networking.NetworkPolicyIngressRule{{
			From: []networking.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprintf("t%d", (i+1)%teams)}},
				PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}},
			}},
			Ports: []networking.NetworkPolicyPort{{Protocol: &tcp, Port: port(8080 + version)}},
		}},
	}
	from := &p.Spec.Ingress[0].From
	switch i % 10 {
	case 0:
		*from = append(*from, networking.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
	case 1:
		*from = append(*from, networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.128/25"}}})
	}
	return p
}

// Batch is all of the cluster, as a source tells of it the first time.
func (c Crowd) Batch() (policy.Batch, error) {
	b := policy.Batch{
		Namespaces: make(map[string]*policy.Namespace, c.Namespaces), Pods: make(map[policy.Name]*policy.Pod, c.Pods),
		Policies: make(map[policy.PolicyKey]*policy.Policy, c.Policies),
	}
	for i := range c.Namespaces {
		n := c.Namespace(i)
		b.Namespaces[n.Name] = policy.FromNamespace(n)
	}
	for i := range c.Pods {
		p := policy.FromPod(c.Pod(i))
		b.Pods[p.Name] = p
	}
	for i := range c.Policies {
		one, err := c.policyBatch(i, 0)
		if err != nil {
			return b, err
		}
		for key, p := range one.Policies {
			b.Policies[key] = p
		}
	}
	return b, nil
}

// MorePod tells of a further pod, elsewhere: the n-th, from 0. It is of those that many
// policies let in.
func (c Crowd) MorePod(n int) policy.Batch {
	p := policy.FromPod(c.Pod(c.Pods + n))
	return policy.Batch{Pods: map[policy.Name]*policy.Pod{p.Name: p}}
}

// Changed tells of a policy that has become another one, and concerns pods here: the
// n-th change, from 1.
func (c Crowd) Changed(n int) (policy.Batch, error) { return c.policyBatch(c.ChangedPolicy(n), n) }

// ChangedPolicy says which policy the n-th change is about.
func (c Crowd) ChangedPolicy(n int) int { return n % min(c.Here, c.Namespaces) }

func (c Crowd) policyBatch(i, version int) (policy.Batch, error) {
	o := c.Policy(i, version)
	p, err := policy.FromNetworkPolicy(o)
	if err != nil {
		return policy.Batch{}, fmt.Errorf("making policy %s/%s: %w", o.Namespace, o.Name, err)
	}
	return policy.Batch{Policies: map[policy.PolicyKey]*policy.Policy{{Name: p.Name}: p}}, nil
}

// Attached are the pods of the node.
func (c Crowd) Attached() []policy.Attached {
	all := make([]policy.Attached, c.Here)
	for i := range all {
		p := c.Pod(i)
		all[i] = policy.Attached{Name: policy.Name{Namespace: p.Namespace, Name: p.Name}, UID: string(p.UID), Addresses: []netip.Addr{c.Address(i)}}
	}
	return all
}
