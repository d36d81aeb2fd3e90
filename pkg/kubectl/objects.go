package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// partLabel is what all objects of deploy/ have.
const partLabel = "app.kubernetes.io/part-of=flatnet"

// bare takes from an object what is long and says nothing of the network, and the copy of
// itself that kubectl apply keeps.
func bare(o metav1.Object) {
	o.SetManagedFields(nil)
	annotations := o.GetAnnotations()
	delete(annotations, v1.LastAppliedConfigAnnotation)
	o.SetAnnotations(annotations)
}

// objects collects what the cluster has of flatnet, and its nodes.
func (c *collector) objects(ctx context.Context, s *survey) {
	if s.DaemonSet != nil {
		bare(s.DaemonSet)
		c.document("daemonset.json", s.DaemonSet)
	}
	c.lists("configmaps.json", func(each func(metav1.Object)) error { return c.client.configMaps(ctx, s.Namespace, each) })
	c.lists("pods.json", func(each func(metav1.Object)) error {
		return c.client.pods(ctx, s.Namespace, agentLabel, func(p *v1.Pod) { each(p) })
	})
	c.lists("nodes.json", func(each func(metav1.Object)) error {
		return c.client.nodes(ctx, func(n *v1.Node) {
			n.Status.Images = nil
			each(n)
		})
	})
	version, err := raw(ctx, c.client.core.Get().AbsPath("/version"))
	if err != nil {
		c.archive.miss("kubernetes-version.json", err)
		return
	}
	c.archive.add("kubernetes-version.json", version)
}

// document adds an object as JSON.
func (c *collector) document(file string, o any) {
	var text bytes.Buffer
	if err := printJSON(&text, o); err != nil {
		c.archive.miss(file, fmt.Errorf("encoding %T: %w", o, err))
		return
	}
	c.archive.add(file, text.Bytes())
}

// lists adds all objects that list tells, one a line.
func (c *collector) lists(file string, list func(each func(metav1.Object)) error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	err := list(func(o metav1.Object) {
		bare(o)
		_ = encoder.Encode(o) // to memory: an API object can be encoded
	})
	if err != nil {
		c.archive.miss(file, err)
	}
	if text.Len() > 0 {
		c.archive.add(file, text.Bytes())
	}
}
