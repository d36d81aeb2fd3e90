package apiwatch

import (
	"context"
	"encoding/json"
	"fmt"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Leases are those of a namespace, each a *coordination.Lease.
func (c *Client) Leases(namespace string) Resource {
	return c.pieces(kind{path: leasesPath(namespace), name: "Lease", reads: func() reads {
		return reads{
			protobuf: func(message []byte) (runtime.Object, error) {
				l := &coordination.Lease{}
				return l, l.Unmarshal(message)
			},
			json: func(text []byte) (runtime.Object, error) {
				l := &coordination.Lease{}
				return l, json.Unmarshal(text, l)
			},
		}
	}})
}

func leasesPath(namespace string) string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
}

// CreateLease creates a Lease in its namespace.
func (c *Client) CreateLease(ctx context.Context, l *coordination.Lease) error {
	l.TypeMeta = metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encoding Lease %s: %w", l.Name, err)
	}
	return c.writes.Post().AbsPath(leasesPath(l.Namespace)).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(text).Do(ctx).Error()
}

// PatchLease changes a Lease by a JSON merge patch.
func (c *Client) PatchLease(ctx context.Context, namespace, name string, patch []byte) error {
	return c.writes.Patch(types.MergePatchType).AbsPath(leasesPath(namespace), name).Body(patch).Do(ctx).Error()
}

// DeleteLease deletes a Lease.
func (c *Client) DeleteLease(ctx context.Context, namespace, name string) error {
	return c.writes.Delete().AbsPath(leasesPath(namespace), name).Do(ctx).Error()
}

// PatchServiceStatus changes the status of a Service by a JSON merge patch.
func (c *Client) PatchServiceStatus(ctx context.Context, namespace, name string, patch []byte) error {
	return c.writes.Patch(types.MergePatchType).Namespace(namespace).Resource("services").Name(name).SubResource("status").Body(patch).Do(ctx).Error()
}

// servicesOfPage is how many Services are asked for at a time.
const servicesOfPage = 500

// EveryService calls do with each Service as it is now, and not as a cache has it.
func (c *Client) EveryService(ctx context.Context, do func(*v1.Service)) error {
	options := metav1.ListOptions{Limit: servicesOfPage}
	for {
		page, err := c.services.List(ctx, options)
		if err != nil {
			return fmt.Errorf("listing services: %w", err)
		}
		for i := range page.Items {
			do(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}
