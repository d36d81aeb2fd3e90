package node

import (
	"maps"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deleted returns the Node as it is while finalizers keep it.
func deleted(o *v1.Node) *v1.Node {
	o = o.DeepCopy()
	o.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
	return o
}

func tainted(o *v1.Node, keys ...string) *v1.Node {
	o = o.DeepCopy()
	for _, key := range keys {
		o.Spec.Taints = append(o.Spec.Taints, v1.Taint{Key: key, Value: "1700000000", Effect: v1.TaintEffectPreferNoSchedule})
	}
	return o
}

func TestLeaving(t *testing.T) {
	own, other := object(t, "n1 172.30.0.1 10.244.1.0/24"), object(t, "n2 172.30.0.2 10.244.2.0/24")
	for _, test := range []struct {
		name   string
		object *v1.Node
		want   string
	}{
		{"stays", own, ""},
		{"other taints", tainted(own, "node.kubernetes.io/unschedulable", "DeletionCandidateOfClusterAutoscaler"), ""},
		{"tainted", tainted(own, "node.kubernetes.io/unschedulable", toBeDeleted), "its Node has the taint ToBeDeletedByClusterAutoscaler"},
		{"deleted", deleted(own), "its Node is being deleted since 2026-02-03T04:05:06Z"},
		{"both", tainted(deleted(own), toBeDeleted), "its Node is being deleted since 2026-02-03T04:05:06Z"},
		{"another one", tainted(deleted(other), toBeDeleted), ""},
	} {
		l := newListed("n1")
		stripped, err := strip(test.object)
		try(t, err)
		for what, o := range map[string]any{"whole": test.object, "stripped": stripped} {
			try(t, l.Replace([]any{o}, "1"))
			if got := l.sorted()[0].Leaving; got != test.want {
				t.Errorf("%s, %s: %q, want %q", test.name, what, got, test.want)
			}
			try(t, l.Replace(nil, "2"))
			try(t, l.Add(o))
			if got := l.sorted()[0].Leaving; got != test.want {
				t.Errorf("%s, %s, added: %q, want %q", test.name, what, got, test.want)
			}
		}
	}
}

// TestAway: of other nodes it is told whether they are ready and stay, and nothing else
// that comes and goes with them.
func TestAway(t *testing.T) {
	own, other := object(t, "n1 172.30.0.1 10.244.1.0/24"), object(t, "n2 172.30.0.2 10.244.2.0/24")
	for _, test := range []struct {
		name   string
		object *v1.Node
		want   string
	}{
		{"there", other, ""},
		{"other taints", tainted(other, "node.kubernetes.io/unschedulable", "DeletionCandidateOfClusterAutoscaler"), ""},
		{"not ready", tainted(other, "node.kubernetes.io/unschedulable", v1.TaintNodeNotReady), "its Node has the taint node.kubernetes.io/not-ready"},
		{"unreachable", tainted(other, v1.TaintNodeUnreachable, v1.TaintNodeUnreachable), "its Node has the taint node.kubernetes.io/unreachable"},
		{"tainted", tainted(other, v1.TaintNodeNotReady, toBeDeleted), "its Node has the taint ToBeDeletedByClusterAutoscaler"},
		{"deleted", deleted(other), "its Node is being deleted since 2026-02-03T04:05:06Z"},
		{"the own one", tainted(own, v1.TaintNodeNotReady), ""},
	} {
		l := newListed("n1")
		stripped, err := strip(test.object)
		try(t, err)
		for what, o := range map[string]any{"whole": test.object, "stripped": stripped} {
			try(t, l.Replace([]any{o}, "1"))
			if n := l.sorted()[0]; n.Away != test.want || n.Leaving != "" {
				t.Errorf("%s, %s: away %q, leaving %q, want %q", test.name, what, n.Away, n.Leaving, test.want)
			}
		}
	}
}

// TestTaintsAreTold: those that are looked at are a change, of the own node and of others;
// the rest is none.
func TestTaintsAreTold(t *testing.T) {
	l := newListed("n1")
	own, other := object(t, "n1 172.30.0.1 10.244.1.0/24"), object(t, "n2 172.30.0.2 10.244.2.0/24")
	try(t, l.Replace([]any{own, other}, "1"))
	changed := func(o *v1.Node) bool {
		t.Helper()
		select {
		case <-l.changed:
		default:
		}
		try(t, l.Update(o))
		return len(l.changed) > 0
	}
	if changed(tainted(other, "node.kubernetes.io/unschedulable")) || changed(tainted(own, "node.kubernetes.io/unschedulable")) {
		t.Error("a taint that is not looked at is told")
	}
	for _, o := range []*v1.Node{tainted(own, v1.TaintNodeNotReady), tainted(own, toBeDeleted), tainted(other, v1.TaintNodeNotReady)} {
		if !changed(o) {
			t.Errorf("a taint of %s is not told", o.Name)
		}
	}
	for _, o := range []*v1.Node{own, other} {
		if !changed(o) {
			t.Errorf("that the taint of %s has gone is not told", o.Name)
		}
	}
}

// TestUnfit: what keeps the own node from answering for addresses of load balancers is told,
// and its labels; of others neither is.
func TestUnfit(t *testing.T) {
	own, other := object(t, "n1 172.30.0.1 10.244.1.0/24"), object(t, "n2 172.30.0.2 10.244.2.0/24")
	cordoned := func(o *v1.Node) *v1.Node {
		o = o.DeepCopy()
		o.Spec.Unschedulable = true
		return o
	}
	excluded := func(o *v1.Node) *v1.Node {
		o = o.DeepCopy()
		o.Labels[v1.LabelNodeExcludeBalancers] = ""
		return o
	}
	for _, test := range []struct {
		name   string
		object *v1.Node
		want   string
	}{
		{"there", own, ""},
		{"other taints", tainted(own, "node.kubernetes.io/memory-pressure"), ""},
		{"not ready", tainted(own, v1.TaintNodeNotReady), "its Node has the taint node.kubernetes.io/not-ready"},
		{"out of service", tainted(own, v1.TaintNodeOutOfService), "its Node has the taint node.kubernetes.io/out-of-service"},
		{"about to go", tainted(own, toBeDeleted), "its Node has the taint ToBeDeletedByClusterAutoscaler"},
		{"deleted", deleted(own), "its Node is being deleted since 2026-02-03T04:05:06Z"},
		{"cordoned", cordoned(own), "its Node is cordoned"},
		{"excluded", excluded(own), "its Node has the label node.kubernetes.io/exclude-from-external-load-balancers"},
		{"another one", cordoned(excluded(tainted(other, v1.TaintNodeNotReady))), ""},
	} {
		l := newListed("n1")
		stripped, err := l.strip(test.object)
		try(t, err)
		labels := test.object.Labels
		if test.object.Name != "n1" {
			labels = nil
		}
		for what, o := range map[string]any{"whole": test.object, "stripped": stripped} {
			try(t, l.Replace([]any{o}, "1"))
			if n := l.sorted()[0]; n.Unfit != test.want || !maps.Equal(n.Labels, labels) {
				t.Errorf("%s, %s: unfit %q, labels %q, want %q, %q", test.name, what, n.Unfit, n.Labels, test.want, labels)
			}
		}
	}
}
