package policy

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// FromClusterNetworkPolicy returns what a ClusterNetworkPolicy says. There is an error
// where it cannot be known whom it is about, and when; everything else that is wrong is in
// its Faults.
//
// What cannot be understood in a rule allows nothing. In one that accepts, the part is
// left out. One that denies or passes and is not understood refuses everything in its
// direction: without it, what it was to refuse, or leave to the tier after this one, would
// come to a rule that allows it. So the API has it for peers that an implementation does
// not know ("fail closed", the comments on ClusterNetworkPolicyEgressPeer).
func FromClusterNetworkPolicy(o *apiwatch.ClusterNetworkPolicy) (*Policy, error) {
	if o.Malformed != nil {
		return nil, fmt.Errorf("decoding it: %w", o.Malformed)
	}
	p := &Policy{Name: Name{Name: o.Name}, Priority: o.Spec.Priority}
	switch o.Spec.Tier {
	case "Admin":
		p.Tier = Admin
	case "Baseline":
		p.Tier = Baseline
	default:
		return nil, fmt.Errorf("spec.tier: %q is neither Admin nor Baseline", o.Spec.Tier)
	}
	var wrong faults
	var ok bool
	if p.Subject, ok = wrong.pods("spec.subject", o.Spec.Subject); !ok {
		return nil, fmt.Errorf("%s", wrong[0])
	}
	f := (*faults)(&p.Faults)
	for i, r := range o.Spec.Ingress {
		p.Rules[Ingress] = append(p.Rules[Ingress], f.clusterRule(at("spec.ingress", i), "from", r, r.From))
	}
	for i, r := range o.Spec.Egress {
		p.Rules[Egress] = append(p.Rules[Egress], f.clusterRule(at("spec.egress", i), "to", r, r.To))
	}
	return p, nil
}

func (f *faults) clusterRule(path, field string, o apiwatch.ClusterPolicyRule, peers []apiwatch.ClusterPolicyPeer) Rule {
	before := len(*f)
	r := Rule{Name: o.Name, AnyPort: len(o.Protocols) == 0}
	switch o.Action {
	case "Accept":
		r.Action = Accept
	case "Deny":
		r.Action = Deny
	case "Pass":
		r.Action = Pass
	default:
		f.add(path+".action", "%q is not one of Accept, Deny and Pass", o.Action)
		r.Action = Deny
	}
	if len(peers) == 0 {
		f.add(path+"."+field, "there are no peers, and there have to be some")
	}
	for i, peer := range peers {
		f.clusterPeer(at(path+"."+field, i), field, peer, &r)
	}
	for i, protocol := range o.Protocols {
		r.Ports = append(r.Ports, f.clusterPorts(at(path+".protocols", i), protocol)...)
	}
	if r.Action != Accept && len(*f) > before {
		f.add(path, "a rule that was to %s and is not understood refuses everything", r.Action)
		return Rule{Name: o.Name, Action: Deny, AnyPeer: true, AnyPort: true}
	}
	return r
}

// clusterPeer adds a peer to a rule.
func (f *faults) clusterPeer(path, field string, o apiwatch.ClusterPolicyPeer, r *Rule) {
	several := 0
	for _, is := range []bool{o.Namespaces != nil, o.Pods != nil, o.Nodes != nil, len(o.Networks) > 0, len(o.DomainNames) > 0} {
		if is {
			several++
		}
	}
	switch {
	case several > 1:
		f.add(path, "there are several kinds of peers, and only one can be")
	case o.Nodes != nil && field == "from":
		f.add(path+".nodes", "%s: nodes are peers of egress only", selectorText(*o.Nodes))
	case o.Nodes != nil:
		if s, ok := f.selector(path+".nodes", *o.Nodes); ok {
			r.Nodes = append(r.Nodes, s)
		}
	case len(o.DomainNames) > 0:
		f.add(path+".domainNames", "%q: peers by the names of domains are not supported: give networks", o.DomainNames)
	case len(o.Networks) > 0:
		for i, text := range o.Networks {
			if p, ok := f.network(at(path+".networks", i), text); ok {
				r.Blocks = append(r.Blocks, Block{CIDR: p})
			}
		}
	default:
		if s, ok := f.pods(path, o.ClusterPolicyPods); ok {
			r.Peers = append(r.Peers, s)
		}
	}
}

// pods converts what selects pods in all namespaces that match.
func (f *faults) pods(path string, o apiwatch.ClusterPolicyPods) (s Selector, ok bool) {
	switch {
	case o.Namespaces != nil && o.Pods != nil:
		f.add(path, "there are namespaces and pods, and only one of these can be")
	case o.Namespaces != nil:
		s.Pods = labels.Everything()
		s.Namespaces, ok = f.selector(path+".namespaces", *o.Namespaces)
	case o.Pods != nil:
		var known bool
		s.Namespaces, ok = f.selector(path+".pods.namespaceSelector", o.Pods.NamespaceSelector)
		s.Pods, known = f.selector(path+".pods.podSelector", o.Pods.PodSelector)
		ok = ok && known
	default:
		f.add(path, "there is nothing that is known here to select by")
	}
	return s, ok
}

// clusterPorts converts a protocol with its ports. A name is one of a port of whatever
// protocol.
func (f *faults) clusterPorts(path string, o apiwatch.ClusterPolicyProtocol) []Port {
	var all []Port
	for _, p := range []struct {
		field    string
		protocol Protocol
		ports    *apiwatch.ClusterPolicyPorts
	}{{"tcp", TCP, o.TCP}, {"udp", UDP, o.UDP}, {"sctp", SCTP, o.SCTP}} {
		if p.ports == nil {
			continue
		}
		if port, ok := f.clusterPort(path+"."+p.field+".destinationPort", p.ports.DestinationPort); ok {
			port.Protocol = p.protocol
			all = append(all, port)
		}
	}
	if o.DestinationNamedPort != "" {
		for _, protocol := range []Protocol{TCP, UDP, SCTP} {
			all = append(all, Port{Protocol: protocol, Name: o.DestinationNamedPort})
		}
	}
	if o.TCP == nil && o.UDP == nil && o.SCTP == nil && o.DestinationNamedPort == "" {
		f.add(path, "there is no protocol that is known here")
	}
	return all
}

func (f *faults) clusterPort(path string, o *apiwatch.ClusterPolicyPort) (p Port, ok bool) {
	switch {
	case o == nil:
		return Port{Last: lastPort}, true
	case o.Range != nil && o.Number != 0:
		f.add(path, "there is a number and a range, and only one of these can be")
	case o.Range != nil:
		p.First, p.Last, ok = f.ports(path+".range", "start", "end", o.Range.Start, o.Range.End)
	default:
		p.First, p.Last, ok = f.ports(path, "number", "number", o.Number, o.Number)
	}
	return p, ok
}
