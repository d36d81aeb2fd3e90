package policy

import (
	"fmt"
	"strings"
	"testing"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestPoliciesThatDoNothing(t *testing.T) {
	w := guarded()
	http := intstr.FromString("http")
	for name, app := range map[string]string{"nobody": "unheard-of", "nameless": "web"} {
		p := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		p.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
		p.Spec.PolicyTypes = []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress}
		ports := []networking.NetworkPolicyPort{{Port: &http}}
		p.Spec.Ingress = []networking.NetworkPolicyIngressRule{{}, {Ports: ports}}
		p.Spec.Egress = []networking.NetworkPolicyEgressRule{{Ports: ports}}
		w.apply(Batch{Policies: map[PolicyKey]*Policy{{Name: Name{"shop", name}}: sure(FromNetworkPolicy(p))}})
	}
	want := "[{NetworkPolicy shop/nameless egress rule 1: no pod that it would be about has a port http/tcp} " +
		"{NetworkPolicy shop/nameless ingress rule 2: no pod that it would be about has a port http/tcp} " +
		"{NetworkPolicy shop/nobody selects no pod of the cluster}]"
	if got := fmt.Sprint(w.idle()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	toNodes := clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}\negress: [{action: Accept, to: [{nodes: {matchLabels: {zone: a}}}]}]")
	key := PolicyKey{true, Name{Name: "p"}}
	w.apply(Batch{Policies: map[PolicyKey]*Policy{key: sure(FromClusterNetworkPolicy(toNodes))}})
	if got := fmt.Sprint(w.idle()); !strings.HasPrefix(got, "[{ClusterNetworkPolicy p egress rule 1: there is no node that it would be about: nodes with zone=a} ") {
		t.Errorf("a policy about nodes that there are not: %s", got)
	}
	w.apply(Batch{Nodes: map[string]*Node{"n1": FromNode(nodeObject("n1", "a"))}})
	if got := fmt.Sprint(w.idle()); got != want {
		t.Errorf("with the node: got\n%s\nwant\n%s", got, want)
	}
	w.apply(Batch{Policies: map[PolicyKey]*Policy{key: nil}})
	w.apply(Batch{Pods: map[Name]*Pod{{"shop", "other"}: {Name: Name{"shop", "other"}, Ports: []NamedPort{{"http", TCP, 80}}}}})
	want = "[{NetworkPolicy shop/nameless ingress rule 2: no pod that it would be about has a port http/tcp} {NetworkPolicy shop/nobody selects no pod of the cluster}]"
	if got := fmt.Sprint(w.idle()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
