package node

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/loop"
)

// listed is what the API server has told of Nodes. It is the store of a
// reflector, and keeps what the network needs of them and nothing else.
type listed struct {
	apiwatch.Store[*v1.Node]
	changed loop.Signal // has one element after a change that matters
	own     string      // name of the own node

	mu    sync.Mutex
	nodes map[string]Node // nil until they are known
}

func newListed(own string) *listed {
	l := &listed{changed: loop.NewSignal(), own: own}
	l.Store = apiwatch.Store[*v1.Node]{Set: l.set, Drop: l.drop, Replaced: l.replace, Strip: l.strip}
	return l
}

// set notes a Node, as it is now.
func (l *listed) set(object *v1.Node) {
	n := l.nodeOf(object)
	l.mu.Lock()
	defer l.mu.Unlock()
	// Most of what the kubelet writes is of no concern here.
	if before, known := l.nodes[n.Name]; known && before.Equal(n) {
		return
	}
	if l.nodes == nil {
		l.nodes = make(map[string]Node)
	}
	l.nodes[n.Name] = n
	l.tell()
}

// drop forgets a Node.
func (l *listed) drop(object *v1.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.nodes[object.Name]; known {
		delete(l.nodes, object.Name)
		l.tell()
	}
}

// replace notes all Nodes, and forgets the others.
func (l *listed) replace(objects []*v1.Node) {
	nodes := make(map[string]Node, len(objects))
	for _, object := range objects {
		nodes[object.Name] = l.nodeOf(object)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == nil || !maps.EqualFunc(nodes, l.nodes, Node.Equal) {
		l.nodes = nodes
		l.tell()
	}
}

// tell says that there is a change.
func (l *listed) tell() {
	l.changed.Give()
}

// count returns how many nodes there are, and whether that is known.
func (l *listed) count() (n int, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.nodes), l.nodes != nil
}

// sorted returns the nodes by name.
func (l *listed) sorted() []Node {
	l.mu.Lock()
	nodes := slices.AppendSeq(make([]Node, 0, len(l.nodes)), maps.Values(l.nodes))
	l.mu.Unlock()
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

// strip is the function strip, but for the own node's labels.
func (l *listed) strip(obj any) (any, error) {
	stripped, err := strip(obj)
	if of, is := obj.(*v1.Node); is && of.Name == l.own {
		stripped.(*v1.Node).Labels = of.Labels
	}
	return stripped, err
}

// strip returns a Node with what nodeOf looks at, and nothing of the rest: a
// Node of a busy cluster has 20 KiB, most of it the names of images.
func strip(obj any) (any, error) {
	n, ok := obj.(*v1.Node)
	if !ok {
		return obj, nil
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              n.Name,
			Labels:            few(n.Labels),
			ResourceVersion:   n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp,
			DeletionTimestamp: n.DeletionTimestamp,
		},
		Spec:   v1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: keptTaints(n.Spec.Taints), Unschedulable: n.Spec.Unschedulable},
		Status: v1.NodeStatus{Addresses: internal(n.Status.Addresses)},
	}, nil
}

// few returns the labels that are looked at.
func few(labels map[string]string) (kept map[string]string) {
	for _, name := range []string{v1.LabelTopologyZone, v1.LabelNodeExcludeBalancers} {
		if value, is := labels[name]; is {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = value
		}
	}
	return kept
}

// internal returns the addresses by which nodes reach each other.
func internal(addresses []v1.NodeAddress) []v1.NodeAddress {
	var good []v1.NodeAddress
	for _, a := range addresses {
		if a.Type == v1.NodeInternalIP {
			good = append(good, a)
		}
	}
	return good
}

// nodeOf returns the Node that the network sees, of the own one its labels, whether it
// stays and whether it may answer for addresses, and of others whether they are there.
func (l *listed) nodeOf(object *v1.Node) Node {
	n := nodeOf(object)
	if n.Name == l.own {
		n.Leaving, n.Unfit, n.Labels = leavingOf(object), unfitOf(object), object.Labels
	} else {
		n.Away = awayOf(object)
	}
	return n
}

// nodeOf returns the Node that the network sees. Text that cannot be read is no
// reason to leave out the rest.
func nodeOf(object *v1.Node) Node {
	n := Node{Name: object.Name, Zone: object.Labels[v1.LabelTopologyZone], Created: object.CreationTimestamp.Time}
	for i, a := range internal(object.Status.Addresses) {
		addr, err := netip.ParseAddr(a.Address)
		if err != nil {
			addr = netip.Addr{}
			n.Malformed = append(n.Malformed, Refusal{
				Node: n.Name, Field: entry("addresses", i), Value: strconv.Quote(a.Address),
				Reason: "is not an IP address", Hint: "look at the InternalIP addresses in the status of the Node, which its kubelet or the cloud controller writes",
			})
		}
		n.Addresses = append(n.Addresses, addr)
	}
	podCIDRs := object.Spec.PodCIDRs
	if len(podCIDRs) == 0 && object.Spec.PodCIDR != "" {
		podCIDRs = []string{object.Spec.PodCIDR} // before Kubernetes 1.16
	}
	for i, text := range podCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			prefix = netip.Prefix{}
			n.Malformed = append(n.Malformed, Refusal{
				Node: n.Name, Field: entry("podCIDRs", i), Value: strconv.Quote(text),
				Reason: "is not a prefix such as 10.244.1.0/24", Hint: "look at spec.podCIDRs of the Node, and at who writes it",
			})
		}
		n.PodCIDRs = append(n.PodCIDRs, prefix)
	}
	return n
}
