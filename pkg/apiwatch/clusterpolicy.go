package apiwatch

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// ClusterNetworkPolicyGroup is the API group of ClusterNetworkPolicies.
const ClusterNetworkPolicyGroup = "policy.networking.k8s.io"

// ClusterNetworkPolicyVersions are the versions of that group with ClusterNetworkPolicies,
// the newest first: those of sigs.k8s.io/network-policy-api v0.3.0, which say the same.
// The types here are its types, by their JSON names. It is not imported because it would
// bring another version of all of Kubernetes' modules with it, and controller-runtime.
func ClusterNetworkPolicyVersions() []string { return []string{"v1beta1", "v1alpha2"} }

// ClusterNetworkPolicy is one of [ClusterNetworkPolicyGroup].
type ClusterNetworkPolicy struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`
	Spec              ClusterNetworkPolicySpec `json:"spec"`
	Status            json.RawMessage          `json:"status,omitempty"` // of no interest
	// Malformed is why nothing but the metadata could be read; nil for most.
	Malformed error `json:"-"`
}

// ClusterNetworkPolicySpec is what a policy says.
type ClusterNetworkPolicySpec struct {
	Tier     string              `json:"tier"` // Admin or Baseline
	Priority int32               `json:"priority"`
	Subject  ClusterPolicyPods   `json:"subject"`
	Ingress  []ClusterPolicyRule `json:"ingress,omitempty"`
	Egress   []ClusterPolicyRule `json:"egress,omitempty"`
}

// ClusterPolicyPods selects pods in one of two ways.
type ClusterPolicyPods struct {
	Namespaces *metav1.LabelSelector    `json:"namespaces,omitempty"`
	Pods       *ClusterPolicyNamespaced `json:"pods,omitempty"`
}

// ClusterPolicyNamespaced selects pods by their labels and those of their namespaces.
type ClusterPolicyNamespaced struct {
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       metav1.LabelSelector `json:"podSelector"`
}

// ClusterPolicyRule is one of ingress, which has From, or of egress, which has To.
type ClusterPolicyRule struct {
	Name      string                  `json:"name,omitempty"`
	Action    string                  `json:"action"` // Accept, Deny or Pass
	From      []ClusterPolicyPeer     `json:"from,omitempty"`
	To        []ClusterPolicyPeer     `json:"to,omitempty"`
	Protocols []ClusterPolicyProtocol `json:"protocols,omitempty"`
}

// ClusterPolicyPeer has one of its fields; the last three are of egress only.
type ClusterPolicyPeer struct {
	ClusterPolicyPods
	Nodes       *metav1.LabelSelector `json:"nodes,omitempty"`
	Networks    []string              `json:"networks,omitempty"`
	DomainNames []string              `json:"domainNames,omitempty"`
}

// ClusterPolicyProtocol has one of its fields.
type ClusterPolicyProtocol struct {
	TCP                  *ClusterPolicyPorts `json:"tcp,omitempty"`
	UDP                  *ClusterPolicyPorts `json:"udp,omitempty"`
	SCTP                 *ClusterPolicyPorts `json:"sctp,omitempty"`
	DestinationNamedPort string              `json:"destinationNamedPort,omitempty"`
}

// ClusterPolicyPorts are ports of a protocol, all where nothing is said.
type ClusterPolicyPorts struct {
	DestinationPort *ClusterPolicyPort `json:"destinationPort,omitempty"`
}

// ClusterPolicyPort is a port, or a range of them.
type ClusterPolicyPort struct {
	Number int32               `json:"number,omitempty"`
	Range  *ClusterPolicyRange `json:"range,omitempty"`
}

// ClusterPolicyRange is a range of ports, both ends included.
type ClusterPolicyRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}

var _ runtime.Object = (*ClusterNetworkPolicy)(nil)

// DeepCopyObject implements [runtime.Object].
func (p *ClusterNetworkPolicy) DeepCopyObject() runtime.Object {
	c := &ClusterNetworkPolicy{Malformed: p.Malformed}
	if text, err := json.Marshal(p); err == nil {
		_ = json.Unmarshal(text, c) // what was written just now can be read
	}
	return c
}

// ReadClusterNetworkPolicy reads one in JSON. Where its metadata can be read and the rest
// cannot, that is Malformed, and no error: one policy must not hide the others.
func ReadClusterNetworkPolicy(text []byte) (*ClusterNetworkPolicy, error) {
	p := &ClusterNetworkPolicy{}
	if err := json.Unmarshal(text, p); err != nil {
		var only metav1.PartialObjectMetadata
		if json.Unmarshal(text, &only) != nil || only.Name == "" {
			return nil, fmt.Errorf("decoding a ClusterNetworkPolicy: %w", err)
		}
		p = &ClusterNetworkPolicy{ObjectMeta: only.ObjectMeta, Malformed: err}
	}
	p.ObjectMeta, p.Status = little(&p.ObjectMeta), nil
	return p, nil
}

// ClusterNetworkPolicies are the objects of that kind in a version of the API, each a
// *[ClusterNetworkPolicy].
func (c *Client) ClusterNetworkPolicies(version string) Resource {
	return c.pieces(kind{path: clusterNetworkPolicies(version), name: "ClusterNetworkPolicy", reads: func() reads {
		return reads{json: func(text []byte) (runtime.Object, error) {
			p, err := ReadClusterNetworkPolicy(text)
			if err != nil {
				return nil, err
			}
			return p, nil
		}}
	}})
}

func clusterNetworkPolicies(version string) string {
	return "/apis/" + ClusterNetworkPolicyGroup + "/" + version + "/clusternetworkpolicies"
}

// FindClusterNetworkPolicies asks in which version the API server knows
// ClusterNetworkPolicies; it is "" where it does not. To ask takes the right to list
// them, and no other.
func (c *Client) FindClusterNetworkPolicies(ctx context.Context) (version string, err error) {
	for _, version := range ClusterNetworkPolicyVersions() {
		body, err := c.ask(ctx, clusterNetworkPolicies(version), metav1.ListOptions{Limit: 1})
		switch {
		case err == nil:
			return version, body.Close()
		case !apierrors.IsNotFound(err):
			return "", err
		}
	}
	return "", nil
}

// WhenGone returns the same, but gone is called, too, when the API server answers that it
// does not know the kind. It must not wait.
func (r Resource) WhenGone(gone func()) Resource {
	note := func(err error) {
		if apierrors.IsNotFound(err) {
			gone()
		}
	}
	return Resource{
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := r.list(ctx, o)
			note(err)
			return list, err
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := r.watch(ctx, o)
			note(err)
			return w, err
		},
	}
}
