package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flatnet-cni/flatnet/pkg/apivalue"
	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// FromPod returns what policies look at of a pod; nil for one that they are not about: of
// the host's network, or run to its end, after which another pod may have its addresses.
func FromPod(o *v1.Pod) *Pod {
	p, _ := fromPod(apiwatch.PodOf(o))
	return p
}

// fromPod is FromPod of what was kept of the pod. The error says what cannot be
// understood, and is not in what is returned.
func fromPod(o *apiwatch.Pod) (_ *Pod, wrong error) {
	if o.HostNetwork || o.Phase == v1.PodSucceeded || o.Phase == v1.PodFailed {
		return nil, nil
	}
	p := &Pod{Name: Name{o.Namespace, o.Name}, UID: string(o.UID), Labels: o.Labels, Node: o.Node, Created: o.CreationTimestamp.Time}
	if len(o.Addresses) > 0 {
		p.Addresses = make([]netip.Addr, 0, len(o.Addresses))
	}
	for _, text := range o.Addresses {
		a, ok := parseAddr(text)
		switch {
		case !ok:
			wrong = fmt.Errorf("status.podIPs: %q is not an address", text)
		case !slices.Contains(p.Addresses, a):
			p.Addresses = append(p.Addresses, a)
		}
	}
	if len(o.Ports) > 0 {
		p.Ports = make([]NamedPort, 0, len(o.Ports))
	}
	for _, port := range o.Ports {
		protocol, ok := apivalue.ProtocolOf(port.Protocol)
		if !ok || port.Port <= 0 || port.Port > lastPort {
			wrong = fmt.Errorf("the container port %q: %d/%s is not a port of TCP, UDP or SCTP", port.Name, port.Port, port.Protocol)
			continue
		}
		p.Ports = append(p.Ports, NamedPort{port.Name, protocol, uint16(port.Port)})
	}
	return p, wrong
}

// FromNamespace returns what policies look at of a namespace.
func FromNamespace(o *v1.Namespace) *Namespace { return &Namespace{o.Name, o.Labels} }

// FromNode returns what policies look at of a node. Of its addresses, names of hosts are
// left out.
func FromNode(o *v1.Node) *Node {
	n := &Node{Name: o.Name, Labels: o.Labels}
	for _, text := range o.Status.Addresses {
		if a, ok := parseAddr(text.Address); ok {
			n.Addresses = append(n.Addresses, a)
		}
	}
	slices.SortFunc(n.Addresses, netip.Addr.Compare)
	n.Addresses = slices.Compact(n.Addresses)
	return n
}

// FromNetworkPolicy returns what a NetworkPolicy says. There is an error where it cannot
// be known whom it is about; everything else that is wrong is in its Faults.
func FromNetworkPolicy(o *networking.NetworkPolicy) (*Policy, error) {
	p := &Policy{Name: Name{o.Namespace, o.Name}, Tier: Network}
	pods, err := selectorOf(o.Spec.PodSelector)
	if err != nil {
		return nil, fmt.Errorf("spec.podSelector: %w", err)
	}
	p.Subject = Selector{Namespace: o.Namespace, Pods: pods}
	f := (*faults)(&p.Faults)
	switch types := o.Spec.PolicyTypes; {
	case len(types) == 0: // as the API server writes where the user does not say
		p.Isolates = [2]bool{Ingress: true, Egress: len(o.Spec.Egress) > 0}
	default:
		for i, t := range types {
			switch t {
			case networking.PolicyTypeIngress:
				p.Isolates[Ingress] = true
			case networking.PolicyTypeEgress:
				p.Isolates[Egress] = true
			default: // or else less would be refused than somebody means
				p.Isolates = [2]bool{Ingress: true, Egress: true}
				f.add(at("spec.policyTypes", i), "%q is neither Ingress nor Egress: the policy isolates in both directions", t)
			}
		}
	}
	if p.Isolates[Ingress] {
		for i, r := range o.Spec.Ingress {
			p.Rules[Ingress] = append(p.Rules[Ingress], f.rule(at("spec.ingress", i), "from", o.Namespace, r.From, r.Ports))
		}
	}
	if p.Isolates[Egress] {
		for i, r := range o.Spec.Egress {
			p.Rules[Egress] = append(p.Rules[Egress], f.rule(at("spec.egress", i), "to", o.Namespace, r.To, r.Ports))
		}
	}
	return p, nil
}

// faults are what is wrong with an object: what is converted while one is noted is left
// out.
type faults []string

func (f *faults) add(path, format string, values ...any) {
	*f = append(*f, path+": "+fmt.Sprintf(format, values...))
}

// at is the path of a list's element.
func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// rule converts a rule of a policy in a namespace. A list that is empty is as one that is
// missing: everybody, and everything.
func (f *faults) rule(path, field, namespace string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) Rule {
	r := Rule{Action: Accept, AnyPeer: len(peers) == 0, AnyPort: len(ports) == 0}
	for i, peer := range peers {
		f.peer(at(path+"."+field, i), namespace, peer, &r)
	}
	for i, port := range ports {
		if p, ok := f.port(at(path+".ports", i), port); ok {
			r.Ports = append(r.Ports, p)
		}
	}
	return r
}

// peer adds a peer to a rule.
func (f *faults) peer(path, namespace string, o networking.NetworkPolicyPeer, r *Rule) {
	switch {
	case o.IPBlock != nil && (o.PodSelector != nil || o.NamespaceSelector != nil):
		f.add(path, "there is an ipBlock and a selector, and only one of these can be")
	case o.IPBlock != nil:
		if b, ok := f.block(path+".ipBlock", o.IPBlock); ok {
			r.Blocks = append(r.Blocks, b)
		}
	case o.PodSelector == nil && o.NamespaceSelector == nil:
		f.add(path, "there is neither a podSelector nor a namespaceSelector nor an ipBlock")
	default:
		s := Selector{Pods: labels.Everything()}
		good := true
		if o.PodSelector != nil {
			s.Pods, good = f.selector(path+".podSelector", *o.PodSelector)
		}
		if o.NamespaceSelector == nil {
			s.Namespace = namespace
		} else {
			var known bool
			s.Namespaces, known = f.selector(path+".namespaceSelector", *o.NamespaceSelector)
			good = good && known
		}
		if good {
			r.Peers = append(r.Peers, s)
		}
	}
}

// block converts an ipBlock. Where an exception cannot be understood, neither can the
// rest: it would allow what was to be an exception.
func (f *faults) block(path string, o *networking.IPBlock) (b Block, good bool) {
	if b.CIDR, good = f.network(path+".cidr", o.CIDR); !good {
		return b, false
	}
	for i, text := range o.Except {
		path := at(path+".except", i)
		except, ok := f.network(path, text)
		if !ok {
			good = false
			continue
		}
		if except.Bits() < b.CIDR.Bits() || !b.CIDR.Contains(except.Addr()) {
			f.add(path, "%q is not in %s", text, b.CIDR)
			good = false
			continue
		}
		b.Except = append(b.Except, except)
	}
	return b, good
}

func (f *faults) network(path, text string) (netip.Prefix, bool) {
	p, ok := parsePrefix(text)
	if !ok {
		f.add(path, "%q is not a network such as 10.0.0.0/8 or 2001:db8::/32", text)
	}
	return p, ok
}

func (f *faults) selector(path string, o metav1.LabelSelector) (labels.Selector, bool) {
	s, err := selectorOf(o)
	if err != nil {
		f.add(path, "%v", err)
	}
	return s, err == nil
}

const lastPort = 65535

// port converts a port, or a range of them.
func (f *faults) port(path string, o networking.NetworkPolicyPort) (p Port, ok bool) {
	protocol := v1.ProtocolTCP
	if o.Protocol != nil {
		protocol = *o.Protocol
	}
	if p.Protocol, ok = apivalue.ProtocolOf(protocol); !ok {
		f.add(path+".protocol", "%q is not one of TCP, UDP and SCTP", protocol)
		return p, false
	}
	switch {
	case o.Port == nil && o.EndPort != nil:
		f.add(path+".endPort", "%d is the end of a range that does not begin: there is no port", *o.EndPort)
		return p, false
	case o.Port == nil:
		p.Last = lastPort
	case o.Port.Type == intstr.String && o.EndPort != nil:
		f.add(path+".endPort", "%d is the end of a range that begins with a name, %q", *o.EndPort, o.Port.StrVal)
		return p, false
	case o.Port.Type == intstr.String && o.Port.StrVal == "":
		f.add(path+".port", "%q is neither a number nor a name", o.Port.StrVal)
		return p, false
	case o.Port.Type == intstr.String:
		p.Name = o.Port.StrVal
	default:
		end := o.Port.IntVal
		if o.EndPort != nil {
			end = *o.EndPort
		}
		p.First, p.Last, ok = f.ports(path, "port", "endPort", o.Port.IntVal, end)
	}
	return p, ok
}

// ports converts the ends of a range, which fields of an object are.
func (f *faults) ports(path, fieldFirst, fieldLast string, first, last int32) (uint16, uint16, bool) {
	switch {
	case first < 1 || first > lastPort:
		f.add(path+"."+fieldFirst, "%d is not a port, from 1 to %d", first, lastPort)
	case last < 1 || last > lastPort:
		f.add(path+"."+fieldLast, "%d is not a port, from 1 to %d", last, lastPort)
	case last < first:
		f.add(path+"."+fieldLast, "%d is before %d, where the range begins", last, first)
	default:
		return uint16(first), uint16(last), true
	}
	return 0, 0, false
}

// selectorOf converts a selector of labels. An empty one selects everything.
func selectorOf(o metav1.LabelSelector) (labels.Selector, error) {
	s, err := metav1.LabelSelectorAsSelector(&o)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be understood: %w", selectorText(o), err)
	}
	return s, nil
}

// selectorText is a selector as one reads it, good or not.
func selectorText(o metav1.LabelSelector) string {
	var all []string
	for key, value := range o.MatchLabels {
		all = append(all, key+"="+value)
	}
	slices.Sort(all)
	for _, e := range o.MatchExpressions {
		all = append(all, fmt.Sprintf("%s %s %v", e.Key, e.Operator, e.Values))
	}
	return fmt.Sprintf("%q", strings.Join(all, ", "))
}

// parseAddr reads an address, which has no zone.
func parseAddr(text string) (netip.Addr, bool) {
	a, err := apivalue.ParseAddr(text)
	return a, err == nil && a.Zone() == ""
}

// parsePrefix reads a network, of which bits after its length are taken for zero. One of
// IPv4-mapped addresses is of IPv4.
func parsePrefix(text string) (netip.Prefix, bool) {
	address, length, _ := strings.Cut(text, "/")
	a, ok := parseAddr(address)
	if !ok {
		return netip.Prefix{}, false
	}
	mapped := a.Is4() && strings.Contains(address, ":")
	if mapped {
		a = netip.AddrFrom16(a.As16())
	}
	// From text, for what is no length in decimal.
	p, err := netip.ParsePrefix(a.String() + "/" + length)
	if err != nil {
		return netip.Prefix{}, false
	}
	if mapped && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}
