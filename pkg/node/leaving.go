package node

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// What is looked at of a Node to know whether it is about to go is here and nowhere
// else: spec.taints, spec.unschedulable, a label, and metadata.deletionTimestamp. It matters of the own node only, to
// load balancers that ask it; that of others is not told, so that nobody plans anew
// for each node that a cluster gives up.

// toBeDeleted is the key of the taint that the Cluster Autoscaler gives a node before it
// deletes it, with any effect and value. kube-proxy goes by the same (KEP-3836).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// leavingOf says why a node is about to go; nothing while it stays.
func leavingOf(object *v1.Node) string {
	if t := object.DeletionTimestamp; !t.IsZero() {
		return fmt.Sprintf("its Node is being deleted since %s", t.UTC().Format(time.RFC3339))
	}
	if len(leavingTaints(object.Spec.Taints)) > 0 {
		return "its Node has the taint " + toBeDeleted
	}
	return ""
}

// leavingTaints returns those that leavingOf looks at.
func leavingTaints(taints []v1.Taint) []v1.Taint {
	for _, t := range taints {
		if t.Key == toBeDeleted {
			return []v1.Taint{{Key: t.Key}}
		}
	}
	return nil
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

// keptTaints returns those that leavingOf and unfitOf look at: all that has to be kept of
// them.
func keptTaints(taints []v1.Taint) (kept []v1.Taint) {
	for _, t := range taints {
		if slices.Contains(unfitTaints, t.Key) && !slices.ContainsFunc(kept, func(k v1.Taint) bool { return k.Key == t.Key }) {
			kept = append(kept, v1.Taint{Key: t.Key})
		}
	}
	return kept
}
