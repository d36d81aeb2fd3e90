package apiwatch

import (
	"encoding/json"
	"unique"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Pod is what flatnet looks at of a v1.Pod. That one is a kilobyte before anything is in
// it; of these a cluster has a hundred thousand. Of its metadata there is what there is
// of a Node's, and the namespace. Nobody writes to the labels: others have the same.
type Pod struct {
	metav1.ObjectMeta
	Node        string
	HostNetwork bool
	Phase       v1.PodPhase
	Addresses   []string // of status.podIPs, or the one of status.podIP
	Ports       []PodPort
}

// PodPort is a port with a name, of a container that runs as long as the pod does.
type PodPort struct {
	Name     string
	Protocol v1.Protocol // as it is written, "" for none
	Port     int32
}

var (
	_ runtime.Object = (*Pod)(nil)
	_ metav1.Object  = (*Pod)(nil)
)

// GetObjectKind implements [runtime.Object].
func (*Pod) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements [runtime.Object].
func (p *Pod) DeepCopyObject() runtime.Object {
	c := *p
	p.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Addresses = append([]string(nil), p.Addresses...)
	c.Ports = append([]PodPort(nil), p.Ports...)
	return &c
}

// PodOf returns of a pod what flatnet looks at.
func PodOf(o *v1.Pod) *Pod {
	p := &Pod{ObjectMeta: little(&o.ObjectMeta), Node: same(o.Spec.NodeName), HostNetwork: o.Spec.HostNetwork, Phase: v1.PodPhase(same(string(o.Status.Phase)))}
	add := func(c v1.Container) {
		for _, port := range c.Ports {
			if port.Name != "" {
				p.Ports = append(p.Ports, PodPort{same(port.Name), v1.Protocol(same(string(port.Protocol))), port.ContainerPort})
			}
		}
	}
	for _, c := range o.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for _, c := range o.Spec.Containers {
		add(c)
	}
	for _, a := range o.Status.PodIPs {
		p.Addresses = append(p.Addresses, a.IP)
	}
	if len(p.Addresses) == 0 && o.Status.PodIP != "" {
		p.Addresses = []string{o.Status.PodIP}
	}
	return p
}

// Pods are the pods that have, or will have, addresses of their own: each a *[Pod]. Those
// of the host's network and those that have run to their end are not sent by an API
// server that can tell them apart: the former since Kubernetes 1.28.
func (c *Client) Pods() Resource { return c.pieces(podKind()) }

// running selects the pods that have not run to their end.
const running = "status.phase!=Succeeded,status.phase!=Failed"

func podKind() kind {
	return kind{
		path: "/api/v1/pods", name: "Pod",
		selectors: []string{"spec.hostNetwork=false," + running, running},
		reads: func() reads {
			shared := labelSets{}
			return reads{
				protobuf: func(message []byte) (runtime.Object, error) {
					p, err := readPod(message)
					if err != nil {
						return nil, err
					}
					p.Labels = shared.one(p.Labels)
					return p, nil
				},
				json: func(text []byte) (runtime.Object, error) {
					o := &v1.Pod{}
					if err := json.Unmarshal(text, o); err != nil {
						return nil, undecoded("Pod", &o.ObjectMeta, err)
					}
					p := PodOf(o)
					p.Labels = shared.one(p.Labels)
					return p, nil
				},
			}
		},
	}
}

// readPod reads of a Pod in protobuf what is in a [Pod]. The numbers are those of
// generated.proto of k8s.io/api/core/v1, which never change.
func readPod(message []byte) (*Pod, error) {
	p := &Pod{}
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			return readMetadata(f.bytes, &p.ObjectMeta)
		case 2:
			return readPodSpec(f.bytes, p)
		case 3:
			return readPodStatus(f.bytes, p)
		}
		return nil
	})
	if err != nil {
		return nil, undecoded("Pod", &p.ObjectMeta, err)
	}
	p.Namespace = same(p.Namespace)
	return p, nil
}

func readPodSpec(message []byte, p *Pod) error {
	var initial, others []PodPort // in the message, those of init containers come after the others
	err := fields(message, func(f field) error {
		switch f.number {
		case 2:
			ports, _, err := readContainer(f.bytes)
			others = append(others, ports...)
			return err
		case 10:
			p.Node = same(string(f.bytes))
		case 11:
			p.HostNetwork = f.value != 0
		case 20:
			ports, sidecar, err := readContainer(f.bytes)
			if sidecar {
				initial = append(initial, ports...)
			}
			return err
		}
		return nil
	})
	if p.Ports = others; len(initial) > 0 {
		p.Ports = append(initial, others...)
	}
	return err
}

// readContainer returns a container's ports with a name, and whether it is always started
// again, as an init container is that is a sidecar.
func readContainer(message []byte) (ports []PodPort, sidecar bool, err error) {
	err = fields(message, func(f field) error {
		switch f.number {
		case 6:
			var p PodPort
			err := fields(f.bytes, func(f field) error {
				switch f.number {
				case 1:
					p.Name = same(string(f.bytes))
				case 3:
					p.Port = int32(f.value)
				case 4:
					p.Protocol = v1.Protocol(same(string(f.bytes)))
				}
				return nil
			})
			if p.Name != "" {
				ports = append(ports, p)
			}
			return err
		case 24:
			sidecar = string(f.bytes) == string(v1.ContainerRestartPolicyAlways)
		}
		return nil
	})
	return ports, sidecar, err
}

func readPodStatus(message []byte, p *Pod) error {
	first := ""
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			p.Phase = v1.PodPhase(same(string(f.bytes)))
		case 6:
			first = string(f.bytes)
		case 12:
			return fields(f.bytes, func(f field) error {
				if f.number == 1 {
					p.Addresses = append(p.Addresses, string(f.bytes))
				}
				return nil
			})
		}
		return nil
	})
	if len(p.Addresses) == 0 && first != "" {
		p.Addresses = []string{first}
	}
	return err
}

// same returns a text that many objects have, once for all of them.
func same(text string) string {
	if text == "" {
		return ""
	}
	return unique.Make(text).Value()
}
