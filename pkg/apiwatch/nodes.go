package apiwatch

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Nodes are all nodes, each a *v1.Node that has nothing but what is named here:
//
//	metadata  name, uid, resourceVersion, creationTimestamp, deletionTimestamp, labels
//	spec      podCIDR, podCIDRs, unschedulable, taints
//	status    addresses
//
// (An API server that answers in JSON although protobuf is preferred is believed all
// of it.)
func (c *Client) Nodes() Resource { return c.pieces(nodeKind()) }

func nodeKind() kind {
	return kind{path: "/api/v1/nodes", name: "Node", reads: func() reads {
		return reads{
			protobuf: func(message []byte) (runtime.Object, error) { return readNode(message) },
			json: func(text []byte) (runtime.Object, error) {
				n := &v1.Node{}
				return n, json.Unmarshal(text, n)
			},
		}
	}}
}
