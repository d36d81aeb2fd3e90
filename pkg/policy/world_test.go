package policy

import (
	"net/netip"
	"testing"
	"time"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

var (
	webAddress = netip.MustParseAddr("10.0.0.1")
	used       = netip.MustParseAddr("10.0.0.2") // by one pod after another
)

// guarded is a node with one pod, web, which only pods with app=good reach, and bad ones
// do not reach.
func guarded() *world {
	w := newWorld()
	p := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "good"}}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	p.Spec.Ingress = []networking.NetworkPolicyIngressRule{{From: []networking.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "good"}}}}}}
	w.apply(Batch{
		Namespaces: map[string]*Namespace{"shop": {Name: "shop"}},
		Policies:   map[PolicyKey]*Policy{{Name: Name{"shop", "good"}}: sure(FromNetworkPolicy(p))},
	})
	w.tell("web", "1", "web", webAddress)
	w.attach([]Attached{{Name: Name{"shop", "web"}, UID: "1", Addresses: []netip.Addr{webAddress}}})
	return w
}

// tell is the API server's news of a pod in namespace shop; without an app the pod is gone.
func (w *world) tell(name, uid, app string, addresses ...netip.Addr) {
	key := Name{"shop", name}
	if app == "" {
		w.apply(Batch{Pods: map[Name]*Pod{key: nil}})
		return
	}
	seconds := int64(len(w.pods)) // who comes later is younger
	w.apply(Batch{Pods: map[Name]*Pod{key: {Name: key, UID: uid, Labels: labels.Set{"app": app}, Addresses: addresses, Created: time.Unix(seconds, 0)}}})
}

// reaches says whether an address reaches web.
func (w *world) reaches(t *testing.T, from netip.Addr) bool {
	t.Helper()
	p := w.replan()
	q := packet{netip.AddrPortFrom(from, 40000), netip.AddrPortFrom(webAddress, 80), TCP}
	passes := newTracer(t, p.table(w, newEnded().elements(), false)).passes(q)
	if p.refuses(w, from, webAddress, TCP, 80) == passes {
		t.Errorf("from %s the rules and judge do not agree", from)
	}
	return passes
}

// A pod that gets a deleted pod's address does not get its rights, whatever the order in
// which the API server tells of both, and also where it tells of the end never.
func TestAddressThatIsUsedAgain(t *testing.T) {
	w := guarded()
	w.tell("old", "2", "good", used)
	if !w.reaches(t, used) {
		t.Fatal("the one with the right does not reach web")
	}
	w.tell("new", "3", "bad", used)
	if w.reaches(t, used) {
		t.Error("the new one has the old one's right, while both are known")
	}
	w.tell("old", "2", "")
	if w.reaches(t, used) {
		t.Error("the new one has the old one's right, when that is gone")
	}
	w.tell("new", "3", "")
	if w.reaches(t, used) {
		t.Error("nobody has the old one's right")
	}
	// On this node the plugin's record decides, which is never late.
	w.tell("old", "2", "good", used)
	w.attach([]Attached{
		{Name: Name{"shop", "web"}, UID: "1", Addresses: []netip.Addr{webAddress}},
		{Name: Name{"shop", "here"}, UID: "4", Addresses: []netip.Addr{used}},
	})
	if w.reaches(t, used) {
		t.Error("a pod of this node that nothing is known of has the right of who had its address")
	}
	w.tell("here", "4", "good")
	if !w.reaches(t, used) {
		t.Error("a pod of this node has not its own right, before the API server knows its address")
	}
}

// Of a pod that is made again under its name, as those of a StatefulSet are, nothing is
// known until the API server tells of the new one; and until then it is closed.
func TestPodOfTheSameName(t *testing.T) {
	w := guarded()
	web := Attached{Name: Name{"shop", "web"}, UID: "9", Addresses: []netip.Addr{webAddress}}
	good := netip.MustParseAddr("10.0.0.7")
	w.tell("good", "7", "good", good)
	w.attach([]Attached{web})
	if w.reaches(t, good) {
		t.Error("the new one is open before it is known")
	}
	w.tell("web", "9", "free", webAddress)
	if !w.reaches(t, netip.MustParseAddr("10.0.0.99")) {
		t.Error("the new one, which no policy selects, is not open")
	}
}

// As long as a pod is attached its policies hold, though it has run to its end or was
// deleted by force.
func TestPodThatIsGoneButAttached(t *testing.T) {
	w := guarded()
	w.tell("web", "1", "")
	if w.reaches(t, used) {
		t.Error("it is open")
	}
	w.tell("good", "7", "good", used)
	if !w.reaches(t, used) {
		t.Error("what was allowed is refused")
	}
}

// In which directions new pods are closed before anything is known of them.
func TestClosedNamespaces(t *testing.T) {
	w := guarded()
	if got, want := w.closed("shop"), [2]bool{Ingress: true}; got != want {
		t.Errorf("shop: %v, want %v", got, want)
	}
	if got := w.closed("other"); got != [2]bool{} {
		t.Errorf("other: %v", got)
	}
	wide := &apiwatch.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "wide"}}
	wide.Spec.Tier = "Admin"
	wide.Spec.Subject.Namespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"closed": "yes"}}
	wide.Spec.Egress = []apiwatch.ClusterPolicyRule{{Action: "Deny", To: []apiwatch.ClusterPolicyPeer{{Networks: []string{"0.0.0.0/0"}}}}}
	w.apply(Batch{
		Namespaces: map[string]*Namespace{"other": {Name: "other", Labels: labels.Set{"closed": "yes"}}, "free": {Name: "free"}},
		Policies:   map[PolicyKey]*Policy{{Cluster: true, Name: Name{Name: "wide"}}: sure(FromClusterNetworkPolicy(wide))},
	})
	for name, want := range map[string][2]bool{"shop": {Ingress: true}, "other": {Egress: true}, "free": {}, "unheard-of": {Egress: true}} {
		if got := w.closed(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A flow that was ended is kept in mind in both directions until it is allowed again or
// is old, and the keys that two flows share go with the last.
func TestEndedFlows(t *testing.T) {
	e := newEnded()
	now := time.Unix(0, 0)
	f := flow{netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), UDP}
	e.add(f, endedFlow{since: now})
	e.add(f, endedFlow{since: now})
	if n := e.elements()[ipv4].Len(); n != 2 {
		t.Errorf("%d elements", n)
	}
	if d := e.take(); len(d) != 1 || len(d[0].Added) != 2 || len(d[0].Deleted) != 0 {
		t.Errorf("changes %v", d)
	}
	e.remove(func(flow, endedFlow) bool { return false })
	if len(e.take()) != 0 {
		t.Error("what stays has changed")
	}
	e.remove(func(flow, endedFlow) bool { return true })
	if d := e.take(); len(d) != 1 || len(d[0].Deleted) != 2 || e.elements()[ipv4].Len() != 0 {
		t.Errorf("changes %v", d)
	}
	// What an earlier process has left is taken over: both ways are one flow.
	var found []nft.Element
	for _, key := range f.ways() {
		found = append(found, nft.Element{Key: key})
	}
	if again := newEnded(); !again.elements()[ipv4].(nft.Adopter).Adopt(found) || len(again.flows) != 1 || again.elements()[ipv4].Len() != 2 || len(again.take()) != 0 {
		t.Errorf("took over %v, %v", again.flows, again.keys)
	}
}

// A pod that is detached from this node is no peer any more, whatever the API server still
// says of it; until it is attached again, or is another one.
func TestPodThatIsDetached(t *testing.T) {
	web := Attached{Name: Name{"shop", "web"}, UID: "1", Addresses: []netip.Addr{webAddress}}
	here := Attached{Name: Name{"shop", "here"}, UID: "2", Addresses: []netip.Addr{used}}
	for name, after := range map[string][]Attached{
		"detached":                        {web},
		"and another one has its address": {web, {Name: Name{"other", "new"}, UID: "3", Addresses: here.Addresses}},
		"and the address is no pod's":     {web, {Addresses: here.Addresses}},
		"made again with another address": {web, {Name: here.Name, UID: "4", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}},
	} {
		w := guarded()
		w.tell("here", "2", "good", used)
		w.attach([]Attached{web, here})
		if !w.reaches(t, used) {
			t.Fatalf("%s: before, it does not reach web", name)
		}
		w.attach(after)
		if w.reaches(t, used) {
			t.Errorf("%s: its address reaches web", name)
		}
		w.tell("here", "2", "good", used) // an update on the way
		if w.reaches(t, used) {
			t.Errorf("%s: its address reaches web after more news of it", name)
		}
		w.attach([]Attached{web, here})
		if !w.reaches(t, used) {
			t.Errorf("%s: attached again, it does not reach web", name)
		}
		w.attach(after)
		w.tell("here", "2", "")
		if len(w.gone) > 0 {
			t.Errorf("%s: what the API server has no longer is kept in mind: %v", name, w.gone)
		}
	}
	// One that is elsewhere now, under the same name.
	w := guarded()
	w.tell("here", "2", "good", used)
	w.attach([]Attached{web, here})
	w.attach([]Attached{web})
	w.tell("here", "5", "good", used)
	if !w.reaches(t, used) || len(w.gone) > 0 {
		t.Errorf("another pod of the name and address does not reach web; gone are %v", w.gone)
	}
}

// What is attached and is no pod has no rights of the pod that the API server has for its
// address, and no policies.
func TestAttachedThatIsNoPod(t *testing.T) {
	w := guarded()
	web := Attached{Name: Name{"shop", "web"}, UID: "1", Addresses: []netip.Addr{webAddress}}
	w.tell("old", "2", "good", used)
	if !w.reaches(t, used) {
		t.Fatal("a pod elsewhere does not reach web")
	}
	foreign := Attached{Addresses: []netip.Addr{used}}
	if w.holds(foreign, used) {
		t.Error("it is known before it is attached")
	}
	w.attach([]Attached{web, foreign})
	if w.reaches(t, used) || !w.holds(foreign, used) {
		t.Errorf("it reaches web, or is not known: %v", w.foreign)
	}
	if len(w.attached) != 1 {
		t.Errorf("attached pods are %v", w.attached)
	}
	w.attach([]Attached{web})
	if !w.reaches(t, used) || w.holds(foreign, used) {
		t.Errorf("the address is not the pod's again: %v", w.foreign)
	}
}
