package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// cluster is a cluster's objects, and a model of what they mean: it goes by their
// descriptions alone, one question at a time, and knows nothing of sets and chains.
type cluster struct {
	namespaces map[string]*v1.Namespace
	pods       map[Name]*v1.Pod
	policies   map[Name]*networking.NetworkPolicy
	wide       map[string]*apiwatch.ClusterNetworkPolicy
	nodes      map[string]*v1.Node
}

// thisNode is the node whose rules are looked at.
const thisNode = "here"

// allows says whether the ends of a connection that are on this node let it pass.
func (c *cluster) allows(p packet) bool {
	from, to := c.podAt(p.source.Addr()), c.podAt(p.destination.Addr())
	if from != nil && from == to {
		return true
	}
	if from != nil && from.Spec.NodeName == thisNode && !c.sideAllows(from, false, to, p.destination.Addr(), to, p) {
		return false
	}
	return to == nil || to.Spec.NodeName != thisNode || c.sideAllows(to, true, from, p.source.Addr(), to, p)
}

func (c *cluster) podAt(a netip.Addr) *v1.Pod {
	for _, p := range c.pods {
		for _, ip := range p.Status.PodIPs {
			if ip.IP == a.String() {
				return p
			}
		}
	}
	return nil
}

// sideAllows asks the policies of one end, whose far end is a pod or none.
func (c *cluster) sideAllows(at *v1.Pod, ingress bool, far *v1.Pod, farAddress netip.Addr, destination *v1.Pod, p packet) bool {
	if action, decided := c.wideSays("Admin", at, ingress, far, farAddress, destination, p); decided {
		return action == "Accept"
	}
	isolated := false
	for _, n := range c.policies {
		if n.Namespace != at.Namespace || !chosen(n.Spec.PodSelector, at.Labels) {
			continue
		}
		is := ingress && (len(n.Spec.PolicyTypes) == 0 || slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeIngress))
		if !ingress {
			is = slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeEgress) || len(n.Spec.PolicyTypes) == 0 && len(n.Spec.Egress) > 0
		}
		if !is {
			continue
		}
		isolated = true
		if ingress {
			for _, r := range n.Spec.Ingress {
				if c.peersMatch(n.Namespace, r.From, far, farAddress) && portsMatch(r.Ports, destination, p) {
					return true
				}
			}
		} else {
			for _, r := range n.Spec.Egress {
				if c.peersMatch(n.Namespace, r.To, far, farAddress) && portsMatch(r.Ports, destination, p) {
					return true
				}
			}
		}
	}
	if isolated {
		return false
	}
	action, decided := c.wideSays("Baseline", at, ingress, far, farAddress, destination, p)
	return !decided || action == "Accept"
}

// wideSays asks the ClusterNetworkPolicies of a tier.
func (c *cluster) wideSays(tier string, at *v1.Pod, ingress bool, far *v1.Pod, farAddress netip.Addr, destination *v1.Pod, p packet) (string, bool) {
	var all []*apiwatch.ClusterNetworkPolicy
	for _, w := range c.wide {
		if w.Spec.Tier == tier && c.podsMatch(w.Spec.Subject, at) {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b *apiwatch.ClusterNetworkPolicy) int {
		if a.Spec.Priority != b.Spec.Priority {
			return int(a.Spec.Priority - b.Spec.Priority)
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for _, w := range all {
		rules := w.Spec.Egress
		if ingress {
			rules = w.Spec.Ingress
		}
		for _, r := range rules {
			if !slices.ContainsFunc(append(slices.Clone(r.From), r.To...), func(peer apiwatch.ClusterPolicyPeer) bool {
				if len(peer.Networks) > 0 {
					return slices.ContainsFunc(peer.Networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(farAddress) })
				}
				if peer.Nodes != nil {
					return c.nodeMatches(*peer.Nodes, farAddress)
				}
				return far != nil && c.podsMatch(peer.ClusterPolicyPods, far)
			}) {
				continue
			}
			if len(r.Protocols) == 0 || slices.ContainsFunc(r.Protocols, func(o apiwatch.ClusterPolicyProtocol) bool { return wideProtocol(o, destination, p) }) {
				return r.Action, r.Action != "Pass"
			}
		}
	}
	return "", false
}

func wideProtocol(o apiwatch.ClusterPolicyProtocol, destination *v1.Pod, p packet) bool {
	if o.DestinationNamedPort != "" {
		return destination != nil && hasPort(destination, o.DestinationNamedPort, p)
	}
	ports := map[Protocol]*apiwatch.ClusterPolicyPorts{TCP: o.TCP, UDP: o.UDP, SCTP: o.SCTP}[p.protocol]
	if ports == nil {
		return false
	}
	number := int32(p.destination.Port())
	switch d := ports.DestinationPort; {
	case d == nil:
		return true
	case d.Range != nil:
		return d.Range.Start <= number && number <= d.Range.End
	default:
		return d.Number == number
	}
}

func (c *cluster) nodeMatches(s metav1.LabelSelector, a netip.Addr) bool {
	for _, n := range c.nodes {
		if chosen(s, n.Labels) && slices.ContainsFunc(n.Status.Addresses, func(one v1.NodeAddress) bool { return one.Address == a.String() }) {
			return true
		}
	}
	return false
}

func (c *cluster) podsMatch(s apiwatch.ClusterPolicyPods, pod *v1.Pod) bool {
	labels := c.namespaces[pod.Namespace].Labels
	if s.Namespaces != nil {
		return chosen(*s.Namespaces, labels)
	}
	return s.Pods != nil && chosen(s.Pods.NamespaceSelector, labels) && chosen(s.Pods.PodSelector, pod.Labels)
}

func (c *cluster) peersMatch(namespace string, peers []networking.NetworkPolicyPeer, far *v1.Pod, a netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			out := slices.ContainsFunc(p.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(a) })
			if netip.MustParsePrefix(p.IPBlock.CIDR).Contains(a) && !out {
				return true
			}
			continue
		}
		if far == nil || p.NamespaceSelector == nil && far.Namespace != namespace {
			continue
		}
		if p.NamespaceSelector != nil && !chosen(*p.NamespaceSelector, c.namespaces[far.Namespace].Labels) {
			continue
		}
		if p.PodSelector == nil || chosen(*p.PodSelector, far.Labels) {
			return true
		}
	}
	return false
}

func portsMatch(ports []networking.NetworkPolicyPort, destination *v1.Pod, p packet) bool {
	if len(ports) == 0 {
		return true
	}
	for _, o := range ports {
		protocol := TCP
		if o.Protocol != nil {
			protocol = map[v1.Protocol]Protocol{v1.ProtocolTCP: TCP, v1.ProtocolUDP: UDP, v1.ProtocolSCTP: SCTP}[*o.Protocol]
		}
		switch {
		case protocol != p.protocol:
		case o.Port == nil:
			return true
		case o.Port.Type == intstr.String:
			if destination != nil && hasPort(destination, o.Port.StrVal, p) {
				return true
			}
		default:
			last := o.Port.IntVal
			if o.EndPort != nil {
				last = *o.EndPort
			}
			if n := int32(p.destination.Port()); o.Port.IntVal <= n && n <= last {
				return true
			}
		}
	}
	return false
}

func hasPort(pod *v1.Pod, name string, p packet) bool {
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = v1.ProtocolTCP
			}
			if port.Name == name && fmt.Sprint(protocol) == map[Protocol]string{TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}[p.protocol] && port.ContainerPort == int32(p.destination.Port()) {
				return true
			}
		}
	}
	return false
}

// chosen says whether labels match a selector.
func chosen(s metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if has, is := labels[k]; !is || has != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, has := labels[e.Key]
		in := has && slices.Contains(e.Values, v)
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			if !in {
				return false
			}
		case metav1.LabelSelectorOpNotIn:
			if in {
				return false
			}
		case metav1.LabelSelectorOpExists:
			if !has {
				return false
			}
		case metav1.LabelSelectorOpDoesNotExist:
			if has {
				return false
			}
		}
	}
	return true
}

// dice makes objects at random: few names and labels, so that they meet.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(70, seed))} }

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d dice) labels() map[string]string {
	all := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		if d.chance(70) {
			all[key] = d.one("a", "b", "c")
		}
	}
	return all
}

func (d dice) selector() (s metav1.LabelSelector) {
	if d.chance(50) {
		s.MatchLabels = map[string]string{d.one("app", "tier"): d.one("a", "b", "c")}
	}
	if d.chance(30) {
		e := metav1.LabelSelectorRequirement{Key: d.one("app", "tier")}
		switch d.IntN(4) {
		case 0:
			e.Operator, e.Values = metav1.LabelSelectorOpIn, []string{d.one("a", "b"), "c"}
		case 1:
			e.Operator, e.Values = metav1.LabelSelectorOpNotIn, []string{d.one("a", "b", "c")}
		case 2:
			e.Operator = metav1.LabelSelectorOpExists
		default:
			e.Operator = metav1.LabelSelectorOpDoesNotExist
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (d dice) namespace(name string) *v1.Namespace {
	return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}}
}

// node makes a node with some of the addresses that are asked about.
func (d dice) node(name string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}}
	for range d.IntN(3) {
		number := podsOfModel - 2 + d.IntN(5) // of a pod, at times
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: fmt.Sprintf(d.one("10.0.0.%d", "fd00::%x"), number)})
	}
	return n
}

// pod makes a pod with the addresses that belong to a number.
func (d dice) pod(namespace, name string, number int) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(fmt.Sprint(namespace, name, number, d.IntN(1000))), Labels: d.labels()}}
	p.Spec.NodeName = d.one(thisNode, "there")
	p.Status.PodIPs = []v1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", number)}}
	if d.chance(80) {
		p.Status.PodIPs = append(p.Status.PodIPs, v1.PodIP{IP: fmt.Sprintf("fd00::%x", number)})
	}
	for _, name := range []string{"http", "dns"} {
		if d.chance(60) {
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{Ports: []v1.ContainerPort{{
				Name: name, ContainerPort: int32(80 + d.IntN(3)), Protocol: v1.Protocol(d.one("TCP", "UDP", "")),
			}}})
		}
	}
	return p
}

func (d dice) block() *networking.IPBlock {
	if d.chance(30) {
		b := &networking.IPBlock{CIDR: d.one("fd00::/64", "fd00::/124", "::/0")}
		if d.chance(50) {
			b.Except = []string{d.one("fd00::4/126", "fd00::8/125")}
			if b.CIDR == "fd00::/124" {
				b.Except = []string{"fd00::4/126"}
			}
		}
		return b
	}
	b := &networking.IPBlock{CIDR: d.one("10.0.0.0/8", "10.0.0.0/28", "0.0.0.0/0")}
	for range d.IntN(3) {
		b.Except = append(b.Except, d.one("10.0.0.4/30", "10.0.0.0/30", "10.0.0.7/32", "10.0.0.8/29"))
	}
	return b
}

func (d dice) peers() (all []networking.NetworkPolicyPeer) {
	for range d.IntN(3) {
		var p networking.NetworkPolicyPeer
		if d.chance(30) {
			p.IPBlock = d.block()
		} else {
			if s := d.selector(); d.chance(60) {
				p.PodSelector = &s
			}
			if s := d.selector(); p.PodSelector == nil || d.chance(40) {
				p.NamespaceSelector = &s
			}
		}
		all = append(all, p)
	}
	return all
}

func (d dice) ports() (all []networking.NetworkPolicyPort) {
	for range d.IntN(3) {
		var p networking.NetworkPolicyPort
		if protocol := v1.Protocol(d.one("TCP", "UDP", "SCTP")); d.chance(60) {
			p.Protocol = &protocol
		}
		switch number := intstr.FromInt32(int32(79 + d.IntN(4))); d.IntN(4) {
		case 0:
			name := intstr.FromString(d.one("http", "dns"))
			p.Port = &name
		case 1:
			p.Port = &number
		case 2:
			p.Port = &number
			end := number.IntVal + int32(d.IntN(3))
			p.EndPort = &end
		}
		all = append(all, p)
	}
	return all
}

func (d dice) policy(namespace, name string) *networking.NetworkPolicy {
	p := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.PodSelector = d.selector()
	for _, one := range []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress} {
		if d.chance(40) {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, one)
		}
	}
	for range d.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networking.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	for range d.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networking.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	return p
}

func (d dice) widePods() (s apiwatch.ClusterPolicyPods) {
	one := d.selector()
	if d.chance(50) {
		s.Namespaces = &one
	} else {
		s.Pods = &apiwatch.ClusterPolicyNamespaced{NamespaceSelector: one, PodSelector: d.selector()}
	}
	return s
}

func (d dice) widePolicy(name string) *apiwatch.ClusterNetworkPolicy {
	p := &apiwatch.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.Tier, p.Spec.Priority, p.Spec.Subject = d.one("Admin", "Baseline"), int32(d.IntN(4)), d.widePods()
	rule := func(egress bool) apiwatch.ClusterPolicyRule {
		r := apiwatch.ClusterPolicyRule{Action: d.one("Accept", "Deny", "Pass")}
		if p.Spec.Tier == "Baseline" {
			r.Action = d.one("Accept", "Deny")
		}
		for range 1 + d.IntN(2) {
			peer := apiwatch.ClusterPolicyPeer{ClusterPolicyPods: d.widePods()}
			switch {
			case egress && d.chance(30):
				peer = apiwatch.ClusterPolicyPeer{Networks: []string{d.one("10.0.0.0/29", "fd00::/125", "0.0.0.0/0")}}
			case egress && d.chance(30):
				one := d.selector()
				peer = apiwatch.ClusterPolicyPeer{Nodes: &one}
			}
			if egress {
				r.To = append(r.To, peer)
			} else {
				r.From = append(r.From, peer)
			}
		}
		for range d.IntN(3) {
			var o apiwatch.ClusterPolicyProtocol
			ports := &apiwatch.ClusterPolicyPorts{}
			switch number := int32(79 + d.IntN(4)); d.IntN(3) {
			case 0:
				ports.DestinationPort = &apiwatch.ClusterPolicyPort{Number: number}
			case 1:
				ports.DestinationPort = &apiwatch.ClusterPolicyPort{Range: &apiwatch.ClusterPolicyRange{Start: number, End: number + 1 + int32(d.IntN(2))}}
			}
			switch d.IntN(4) {
			case 0:
				o.UDP = ports
			case 1:
				o.SCTP = ports
			case 2:
				o.DestinationNamedPort = d.one("http", "dns")
			default:
				o.TCP = ports
			}
			r.Protocols = append(r.Protocols, o)
		}
		return r
	}
	for range d.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, rule(false))
	}
	for range d.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, rule(true))
	}
	return p
}

func newCluster() *cluster {
	return &cluster{map[string]*v1.Namespace{}, map[Name]*v1.Pod{}, map[Name]*networking.NetworkPolicy{}, map[string]*apiwatch.ClusterNetworkPolicy{}, map[string]*v1.Node{}}
}

const podsOfModel = 12

// step changes something, and returns what a source would tell of it.
func (c *cluster) step(d dice) Batch {
	b := Batch{Pods: map[Name]*Pod{}, Namespaces: map[string]*Namespace{}, Policies: map[PolicyKey]*Policy{}, Nodes: map[string]*Node{}}
	spaces := []string{"x", "y", "z"}
	switch d.IntN(9) {
	case 0, 1, 2:
		n := d.IntN(podsOfModel)
		name := Name{spaces[n%len(spaces)], fmt.Sprintf("pod%d", n)}
		if c.pods[name] != nil && d.chance(40) {
			delete(c.pods, name)
			b.Pods[name] = nil
			break
		}
		p := d.pod(name.Namespace, name.Name, n+1)
		if before := c.pods[name]; before != nil {
			p.Spec.NodeName, p.UID = before.Spec.NodeName, before.UID // a pod stays where it is
			p.Status.PodIPs = before.Status.PodIPs
		}
		c.pods[name] = p
		b.Pods[name] = FromPod(p)
	case 3:
		n := d.namespace(d.one(spaces...))
		c.namespaces[n.Name] = n
		b.Namespaces[n.Name] = FromNamespace(n)
	case 4, 5, 6:
		name := Name{d.one(spaces...), d.one("p", "q", "r")}
		key := PolicyKey{Name: name}
		if c.policies[name] != nil && d.chance(40) {
			delete(c.policies, name)
			b.Policies[key] = nil
			break
		}
		p := d.policy(name.Namespace, name.Name)
		c.policies[name] = p
		b.Policies[key] = sure(FromNetworkPolicy(p))
	case 7:
		name := d.one("n1", "n2", "n3")
		if c.nodes[name] != nil && d.chance(30) {
			delete(c.nodes, name)
			b.Nodes[name] = nil
			break
		}
		c.nodes[name] = d.node(name)
		b.Nodes[name] = FromNode(c.nodes[name])
	default:
		name := d.one("p", "q", "r", "s")
		key := PolicyKey{Cluster: true, Name: Name{Name: name}}
		if c.wide[name] != nil && d.chance(40) {
			delete(c.wide, name)
			b.Policies[key] = nil
			break
		}
		p := d.widePolicy(name)
		c.wide[name] = p
		b.Policies[key] = sure(FromClusterNetworkPolicy(p))
	}
	return b
}

func sure[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// attached are the pods that the plugin has attached to this node.
func (c *cluster) attached() (all []Attached) {
	for name, p := range c.pods {
		if p.Spec.NodeName != thisNode {
			continue
		}
		a := Attached{Name: name, UID: string(p.UID)}
		for _, ip := range p.Status.PodIPs {
			a.Addresses = append(a.Addresses, netip.MustParseAddr(ip.IP))
		}
		all = append(all, a)
	}
	return all
}

// everything is all that there is.
func (c *cluster) everything() Batch {
	b := Batch{Pods: map[Name]*Pod{}, Namespaces: map[string]*Namespace{}, Policies: map[PolicyKey]*Policy{}, Nodes: map[string]*Node{}}
	for name, n := range c.nodes {
		b.Nodes[name] = FromNode(n)
	}
	for name, p := range c.pods {
		b.Pods[name] = FromPod(p)
	}
	for name, n := range c.namespaces {
		b.Namespaces[name] = FromNamespace(n)
	}
	for name, p := range c.policies {
		b.Policies[PolicyKey{Name: name}] = sure(FromNetworkPolicy(p))
	}
	for name, p := range c.wide {
		b.Policies[PolicyKey{Cluster: true, Name: Name{Name: name}}] = sure(FromClusterNetworkPolicy(p))
	}
	return b
}

// packets are a few connections among pods, and with strangers.
func (c *cluster) packets(d dice, n int) (all []packet) {
	for range n {
		f := d.one("10.0.0.%d", "fd00::%x")
		address := func() netip.Addr { return netip.MustParseAddr(fmt.Sprintf(f, 1+d.IntN(podsOfModel+3))) }
		p := packet{netip.AddrPortFrom(address(), uint16(40000+d.IntN(100))), netip.AddrPortFrom(address(), uint16(79+d.IntN(5))), []Protocol{TCP, UDP, SCTP, 1}[d.IntN(4)]}
		if !p.protocol.HasPorts() {
			p.source, p.destination = netip.AddrPortFrom(p.source.Addr(), 0), netip.AddrPortFrom(p.destination.Addr(), 0)
		}
		all = append(all, p)
	}
	return all
}
