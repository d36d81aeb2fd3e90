package node

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// What is looked at of a Node to know whether it is about to go, not ready, or not to be
// asked by load balancers is here and nowhere else: spec.taints, spec.unschedulable, a label
// and metadata.deletionTimestamp. Of the own node it matters to load balancers that ask it,
// and to who answers for their addresses. Of others it matters to who probes them: one that
// is away need not answer.

// toBeDeleted is the key of the taint that the Cluster Autoscaler gives a node before it
// deletes it, with any effect and value. kube-proxy goes by the same (KEP-3836).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// leavingOf says why a node is about to go; nothing while it stays.
func leavingOf(object *v1.Node) string {
	if t := object.DeletionTimestamp; !t.IsZero() {
		return fmt.Sprintf("its Node is being deleted since %s", t.UTC().Format(time.RFC3339))
	}
	if slices.ContainsFunc(object.Spec.Taints, func(t v1.Taint) bool { return t.Key == toBeDeleted }) {
		return "its Node has the taint " + toBeDeleted
	}
	return ""
}

// notReady are the taints that the node lifecycle controller gives a node whose kubelet
// says that it is not ready, or says nothing any more. They are looked at in the place of
// the condition, which is in a part of the Node that is not read.
var notReady = []string{v1.TaintNodeNotReady, v1.TaintNodeUnreachable}

// awayOf says why a node may not answer; nothing where it should.
func awayOf(object *v1.Node) string {
	if leaving := leavingOf(object); leaving != "" {
		return leaving
	}
	for _, t := range object.Spec.Taints {
		if slices.Contains(notReady, t.Key) {
			return "its Node has the taint " + t.Key
		}
	}
	return ""
}

// unfitTaints are those of a node that is not to be where an address is.
var unfitTaints = []string{toBeDeleted, v1.TaintNodeNotReady, v1.TaintNodeUnreachable, v1.TaintNodeOutOfService}

// unfitOf says why a node is not to answer for addresses of load balancers; nothing where
// it may.
func unfitOf(object *v1.Node) string {
	if leaving := leavingOf(object); leaving != "" {
		return leaving
	}
	if object.Spec.Unschedulable {
		return "its Node is cordoned"
	}
	if _, is := object.Labels[v1.LabelNodeExcludeBalancers]; is {
		return "its Node has the label " + v1.LabelNodeExcludeBalancers
	}
	if t := keptTaints(object.Spec.Taints); len(t) > 0 {
		return "its Node has the taint " + t[0].Key
	}
	return ""
}

// keptTaints returns those that are looked at here: all that has to be kept of them.
func keptTaints(taints []v1.Taint) (kept []v1.Taint) {
	for _, t := range taints {
		if slices.Contains(unfitTaints, t.Key) && !slices.ContainsFunc(kept, func(k v1.Taint) bool { return k.Key == t.Key }) {
			kept = append(kept, v1.Taint{Key: t.Key})
		}
	}
	return kept
}
