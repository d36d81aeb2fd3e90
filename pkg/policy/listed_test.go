package policy

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// text is a batch in words.
func (b Batch) text() string {
	var all []string
	add := func(is bool, what, name, details string) {
		if !is {
			what, details = "no "+what, ""
		}
		all = append(all, strings.TrimSpace(what+" "+name+" "+details))
	}
	for name, p := range b.Pods {
		details := ""
		if p != nil {
			details = p.Labels.String()
			for _, a := range p.Addresses {
				details += " " + a.String()
			}
		}
		add(p != nil, "pod", name.String(), details)
	}
	for name, n := range b.Namespaces {
		details := ""
		if n != nil {
			details = n.Labels.String()
		}
		add(n != nil, "namespace", name, details)
	}
	for name, n := range b.Nodes {
		details := ""
		if n != nil {
			details = strings.TrimSpace(n.Labels.String() + " " + strings.Trim(fmt.Sprint(n.Addresses), "[]"))
		}
		add(n != nil, "node", name, details)
	}
	for key, p := range b.Policies {
		add(p != nil, map[bool]string{false: "policy", true: "cluster policy"}[key.Cluster], key.Name.String(), "")
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func podObject(name, address string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": name}},
		Status:     v1.PodStatus{Phase: v1.PodRunning, PodIP: address},
	}
}

func few(o *v1.Pod) *apiwatch.Pod { return apiwatch.PodOf(o) }

func namespaceObject(name string) *v1.Namespace {
	return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelMetadataName: name}}}
}

func TestListed(t *testing.T) {
	l := newListed()
	policies, cluster, spaces, all := networkPolicyStore(l), clusterPolicyStore(l), namespaceStore(l), podStore(l)
	step := func(what string, err error, want string) {
		t.Helper()
		must(t, err)
		told := len(l.changed) > 0
		for len(l.changed) > 0 {
			<-l.changed
		}
		if got := l.take().text(); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		if want != "" && !told {
			t.Errorf("%s: nobody is told", what)
		}
	}
	known := func(want bool) {
		t.Helper()
		if l.known() != want {
			t.Errorf("everything is known: %v; missing is %q", !want, l.missing())
		}
	}
	p := networkPolicy(t, `{}`)
	step("policies alone", policies.Replace([]any{p}, ""), "")
	step("no ClusterNetworkPolicies", cluster.Replace(nil, ""), "")
	known(false)
	step("pods", all.Replace([]any{few(podObject("a", "10.0.0.1")), few(podObject("b", ""))}, ""), "")
	known(false)
	step("and namespaces", spaces.Replace([]any{namespaceObject("shop")}, ""), "namespace shop kubernetes.io/metadata.name=shop, pod shop/a app=a 10.0.0.1, pod shop/b app=b, policy shop/p")
	known(true)
	step("the same list", all.Replace([]any{few(podObject("a", "10.0.0.1")), few(podObject("b", ""))}, ""), "")
	step("the same policy", policies.Update(networkPolicy(t, `{}`)), "")
	step("the same namespace", spaces.Update(namespaceObject("shop")), "")
	busy := podObject("a", "10.0.0.1")
	busy.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady}}
	step("of no concern", all.Update(few(busy)), "")
	step("an address", all.Update(few(podObject("b", "10.0.0.2"))), "pod shop/b app=b 10.0.0.2")
	done := podObject("b", "10.0.0.2")
	done.Status.Phase = v1.PodSucceeded
	step("a pod has run to its end", all.Update(few(done)), "no pod shop/b")
	step("and goes", all.Delete(few(done)), "")
	step("a pod comes", all.Add(few(podObject("c", "10.0.0.2"))), "pod shop/c app=c 10.0.0.2")
	step("one vanished", all.Replace([]any{few(podObject("c", "10.0.0.2"))}, ""), "no pod shop/a")
	step("one comes and goes", all.Add(few(podObject("d", "10.0.0.3"))), "pod shop/d app=d 10.0.0.3")
	must(t, all.Update(few(podObject("d", "10.0.0.4"))))
	step("one comes and goes", all.Delete(few(podObject("d", "10.0.0.4"))), "no pod shop/d")
	step("a namespace goes", spaces.Delete(namespaceObject("shop")), "no namespace shop")
	step("and comes", spaces.Add(namespaceObject("shop")), "namespace shop kubernetes.io/metadata.name=shop")

	// What cannot be understood is as it was before, and is named.
	step("a policy that is none", policies.Update(networkPolicy(t, `{podSelector: {matchExpressions: [{key: x, operator: Like}]}}`)), "")
	step("a ClusterNetworkPolicy that is none", cluster.Add(clusterPolicy(t, "tier: Admin")), "")
	if got := fmt.Sprint(l.why()); got != `[{ClusterNetworkPolicy p spec.subject: there is nothing that is known here to select by; it is not in force} {NetworkPolicy shop/p spec.podSelector: "x Like []" cannot be understood: "Like" is not a valid label selector operator; what it said before is in force}]` {
		t.Error(got)
	}
	step("it is one now", cluster.Update(clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}")), "cluster policy p")
	step("it is none again", cluster.Update(clusterPolicy(t, "tier: None\nsubject: {namespaces: {}}")), "")
	step("and again one", cluster.Update(clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}")), "")
	step("a new list of the other kind", policies.Replace(nil, ""), "no policy shop/p")
	if why := l.why(); len(why) > 0 {
		t.Errorf("still wrong is %v", why)
	}
	odd := podObject("c", "10.0.0.x")
	step("a pod whose address is none", all.Update(few(odd)), "")
	if got := fmt.Sprint(l.why()); got != `[{Pod shop/c status.podIPs: "10.0.0.x" is not an address: the pod is taken for what it was before}]` {
		t.Error(got)
	}
	odd.UID = "another"
	odd.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 80, Protocol: "TPC"}}}}
	odd.Status.PodIP = "10.0.0.9"
	step("another one of the name", all.Update(few(odd)), "pod shop/c app=c 10.0.0.9")
	if got := fmt.Sprint(l.why()); got != `[{Pod shop/c the container port "web": 80/TPC is not a port of TCP, UDP or SCTP, which is left out}]` {
		t.Error(got)
	}
	step("it is good again", all.Update(few(podObject("c", "10.0.0.2"))), "pod shop/c app=c 10.0.0.2")
	if why := l.why(); len(why) > 0 {
		t.Errorf("still wrong is %v", why)
	}
	step("a policy of the same name", policies.Add(networkPolicy(t, `{}`)), "policy shop/p")
	step("it goes", policies.Delete(networkPolicy(t, `{}`)), "no policy shop/p")
	for _, err := range []error{all.Add(podObject("a", "")), spaces.Add(few(podObject("a", ""))), policies.Replace([]any{namespaceObject("shop")}, "")} {
		if err == nil {
			t.Error("an object is taken for one of another kind")
		}
	}

	// The last policy takes the pods along.
	k := &Kubernetes{listed: l}
	if k.endSubjects(spaces, all) {
		t.Error("pods are not looked at any more, although there is a policy")
	}
	step("the last goes", cluster.Delete(clusterPolicy(t, "tier: Admin")), "no cluster policy p")
	if !k.endSubjects(spaces, all) {
		t.Error("pods are looked at, although there is no policy")
	}
	step("and so do the others", nil, "no namespace shop, no pod shop/c")
	known(true)
	step("a list that is late", all.Replace([]any{few(podObject("a", "10.0.0.1"))}, ""), "")
	step("and a pod", all.Add(few(podObject("a", "10.0.0.1"))), "")
	step("a policy comes again", policies.Add(networkPolicy(t, `{}`)), "")
	known(false)
	spaces, all = namespaceStore(l), podStore(l)
	step("namespaces", spaces.Replace([]any{namespaceObject("shop")}, ""), "")
	step("pods", all.Replace([]any{few(podObject("a", "10.0.0.1"))}, ""), "namespace shop kubernetes.io/metadata.name=shop, pod shop/a app=a 10.0.0.1, policy shop/p")
}

func nodeObject(name, zone string, addresses ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": zone}}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Address: a})
	}
	return n
}

const towardsNodes = "tier: Admin\nsubject: {namespaces: {}}\negress: [{action: Accept, to: [{nodes: {matchLabels: {zone: a}}}]}]"

// Nodes are looked at while a policy names some.
func TestListedNodes(t *testing.T) {
	l := newListed()
	k := &Kubernetes{listed: l}
	cluster, all := clusterPolicyStore(l), nodeStore(l)
	must(t, networkPolicyStore(l).Replace(nil, ""))
	must(t, namespaceStore(l).Replace(nil, ""))
	must(t, podStore(l).Replace(nil, ""))
	must(t, cluster.Replace([]any{clusterPolicy(t, "tier: Admin\nsubject: {namespaces: {}}")}, ""))
	take := func(what, want, missing string) {
		t.Helper()
		if got := l.take().text(); got != want || l.missing() != missing || l.needed(nodes) != (len(l.policies) > 0 && l.policies[PolicyKey{true, Name{Name: "p"}}].namesNodes()) {
			t.Errorf("%s: got %q, missing %q; want %q, %q", what, got, l.missing(), want, missing)
		}
	}
	take("none is named", "cluster policy p", "")
	if !k.endNodes(nodeStore(l)) {
		t.Error("nodes are looked at, although no policy names any")
	}
	must(t, cluster.Update(clusterPolicy(t, towardsNodes)))
	take("some are", "", "nodes")
	must(t, cluster.Update(clusterPolicy(t, towardsNodes)))
	must(t, all.Replace([]any{nodeObject("n1", "a", "n1", "10.0.0.9", "10.0.0.8", "10.0.0.9")}, ""))
	take("they are known", "cluster policy p, node n1 zone=a 10.0.0.8 10.0.0.9", "")
	must(t, all.Update(nodeObject("n1", "a", "10.0.0.9", "10.0.0.8")))
	take("of no concern", "", "")
	must(t, all.Update(nodeObject("n1", "b", "10.0.0.9")))
	take("another label", "node n1 zone=b 10.0.0.9", "")
	if k.endNodes(all) {
		t.Error("nodes are not looked at any more, although a policy names some")
	}
	must(t, cluster.Delete(clusterPolicy(t, towardsNodes)))
	if !k.endNodes(all) {
		t.Error("nodes are looked at, although the policy that names some is gone")
	}
	take("the policy goes", "no cluster policy p, no node n1", "")
}

// A hundred thousand pods have to fit.
func TestMemoryOfPods(t *testing.T) {
	const many = 20_000
	l := newListed()
	store := podStore(l)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range many {
		// Each has labels of its own, as those of a StatefulSet.
		must(t, store.Add(&apiwatch.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: fmt.Sprintf("some-application-%010d", i), UID: types.UID(fmt.Sprintf("%036d", i)),
				Labels: map[string]string{"app": "some-application", "team": "a", "statefulset.kubernetes.io/pod-name": fmt.Sprintf("some-application-%010d", i)},
			},
			Node: "n1", Phase: v1.PodRunning,
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), fmt.Sprintf("2001:db8::%x", i)},
			Ports:     []apiwatch.PodPort{{Name: "web", Port: 80}},
		}))
	}
	l.mu.Lock()
	l.clean() // as if it had been taken
	l.mu.Unlock()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / many
	t.Logf("%d bytes a pod", each)
	if each > 1500 {
		t.Errorf("%d bytes a pod", each)
	}
	runtime.KeepAlive(l)
}
