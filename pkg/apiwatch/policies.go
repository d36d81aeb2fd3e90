package apiwatch

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// NetworkPolicies are those of all namespaces, each a *networking.NetworkPolicy that has
// of its metadata what there is of a [Pod]'s.
func (c *Client) NetworkPolicies() Resource {
	return c.pieces(kind{path: "/apis/networking.k8s.io/v1/networkpolicies", name: "NetworkPolicy", reads: func() reads {
		few := func(o *networking.NetworkPolicy, err error) (runtime.Object, error) {
			if err != nil {
				return nil, undecoded("NetworkPolicy", &o.ObjectMeta, err)
			}
			o.ObjectMeta = little(&o.ObjectMeta)
			return o, nil
		}
		return reads{
			protobuf: func(message []byte) (runtime.Object, error) {
				o := &networking.NetworkPolicy{}
				return few(o, o.Unmarshal(message))
			},
			json: func(text []byte) (runtime.Object, error) {
				o := &networking.NetworkPolicy{}
				return few(o, json.Unmarshal(text, o))
			},
		}
	}})
}

// Namespaces are all namespaces, each a *v1.Namespace that has metadata only, and of that
// what there is of a [Pod]'s.
func (c *Client) Namespaces() Resource {
	return c.pieces(kind{path: "/api/v1/namespaces", name: "Namespace", reads: func() reads {
		return reads{
			protobuf: func(message []byte) (runtime.Object, error) {
				o := &v1.Namespace{}
				err := fields(message, func(f field) error {
					if f.number == 1 {
						return readMetadata(f.bytes, &o.ObjectMeta)
					}
					return nil
				})
				if err != nil {
					return nil, undecoded("Namespace", &o.ObjectMeta, err)
				}
				return o, nil
			},
			json: func(text []byte) (runtime.Object, error) {
				var o v1.Namespace
				if err := json.Unmarshal(text, &o); err != nil {
					return nil, undecoded("Namespace", &o.ObjectMeta, err)
				}
				return &v1.Namespace{ObjectMeta: little(&o.ObjectMeta)}, nil
			},
		}
	}})
}
