package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/closed"
)

// history is a change of a cluster during which the agent is killed.
type history struct {
	name          string
	before, after *cluster
	// never says that no agent has kept policies before; rebooted that the node has just
	// started: its pods are attached anew, and of the agent before there is only the list.
	never, rebooted bool
}

// Whenever the agent is killed during a change, before each of the transactions that it
// consists of, so also after each, and after the last, no connection is possible
// that was forbidden before the change and is afterwards, none is refused that was allowed
// all the time, whether it begins or goes on, and a new pod is not open before it has
// rules. The next agent, which finds what is left, makes everything what it is to be.
func TestAgentIsKilledDuringAChange(t *testing.T) {
	kills := 0
	r := newProving(t)
	for _, h := range histories() {
		t.Run(h.name, func(t *testing.T) {
			s := newCrashSite(&proving{t, r.source, r.node, r.sink, r.received, r.number}, t.TempDir())
			s.node.Test(t, func() {
				for at := 0; ; at++ {
					if !s.run(h, at) {
						t.Logf("killed before each of %d changes", at)
						break
					}
					kills++
				}
			})
			r.number = s.number
		})
	}
	t.Logf("%d kills", kills)
}

// run has a process killed before its change number at, and another one start, and
// reports whether there were as many changes.
func (s *crashSite) run(h history, at int) (killed bool) {
	t := s.t
	t.Helper()
	s.must(s.reset())
	before, after := h.before.attached(), h.after.attached()
	p, err := s.start(-1)
	if h.never {
		s.must(s.reset())
	} else {
		s.must(err)
		s.must(s.replace(nil, before))
		s.must(p.learns(h.before.everything(), before))
	}
	q := s.questions(h)
	s.converse(q)

	var begun error
	switch {
	case h.rebooted:
		p.keeper.Close()
		_, err := Remove()
		s.must(err)
		s.must(s.replace(nil, before))
		p, begun = s.start(at)
	case h.never:
		p, begun = s.start(at)
	default:
		p.at = len(p.names) + at
	}
	s.must(s.replace(before, after))
	if begun == nil && !h.never && !h.rebooted {
		begun = p.hears() // of what is closed before it knows of whom
	}
	if begun == nil {
		if h.never || h.rebooted {
			begun = p.learns(h.after.everything(), after)
		} else {
			begun = p.learns(h.before.changesTo(h.after), after)
		}
	}
	if (begun != nil) != p.dead {
		t.Fatalf("%s: %v", p.describe(), begun)
	}
	p.keeper.Close()
	how := p.describe()
	s.check(h, "the agent has ended, "+how, q, func(one question) (must, mustNot bool) {
		return one.before && one.after && !one.fresh, !one.after && (!one.before || one.fresh)
	})
	if !p.dead || len(p.names)%heirEvery == 0 {
		s.inherit(h, how)
		q = slices.DeleteFunc(q, func(one question) bool { return one.goesOn && one.isOfHeir() })
	}

	// Somebody comes while there is no agent, to where everything is refused all the time.
	// Where none has ever told the plugin of policies, this is not known.
	late := h.after
	if _, err := os.Stat(s.list); err == nil {
		late = late.with(func(c *cluster) { c.put(pod("vault", "late", "late", thisNode, lateNumber, "")) })
		s.must(s.replace(after, late.attached()))
		s.check(h, "somebody new has come without an agent, "+how, toLate(), func(question) (must, mustNot bool) { return false, true })
	}
	n, err := s.start(-1)
	s.must(err)
	s.must(n.learns(late.everything(), late.attached()))
	n.keeper.Close()
	s.check(h, "another agent has come, "+how, q, func(one question) (must, mustNot bool) { return one.after, !one.after })
	if late != h.after {
		s.check(h, "another agent knows the new one, "+how, toLate(), func(question) (must, mustNot bool) { return false, true })
	}
	if left, err := n.Gate.Closed(); err != nil || len(left) > 0 {
		t.Errorf("%s: another agent has come, and closed are %v, %v; %s", h.name, left, err, how)
	}
	if !p.dead {
		s.inheritBehindTheAPI(h, n, late)
	}
	return p.dead
}

// The pod whose address somebody gets when it has ended, and after how many changes.
const lentNumber, heirEvery = 6, 3

// lent is that address.
func lent(f family) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf([...]string{"10.0.0.%d", "fd00::%x"}[f], lentNumber))
}

// heir is a cluster in which somebody new has the lent address, of whom no policy is.
func (c *cluster) heir() *cluster {
	o := c.nobodyAt(lentNumber)
	o.put(pod("other", "heir", "heir", thisNode, lentNumber, "stranger"))
	return o
}

// nobodyAt is a cluster in which the addresses of a number are no pod's.
func (c *cluster) nobodyAt(number int) *cluster {
	return c.with(func(c *cluster) {
		maps.DeleteFunc(c.pods, func(_ Name, p *v1.Pod) bool { return p.Status.PodIPs[0].IP == fmt.Sprintf("10.0.0.%d", number) })
	})
}

// inherit has a pod end while there is no agent, and another one get its address: that
// one is nobody to the rules. In the end it is as before, but for connections.
func (s *crashSite) inherit(h history, how string) {
	s.t.Helper()
	l, err := closed.Read(s.list)
	s.must(err)
	if !l.Policed() {
		return // where nobody has told the plugin of policies
	}
	heir := h.after.heir()
	s.must(s.replace(h.after.attached(), heir.attached()))
	ingress, egress := l.Of("other")
	s.check(h, "somebody has the address of one that has ended, "+how, s.ofHeir(h, h.before, h.after), func(one question) (must, mustNot bool) {
		return one.before && one.after && !one.fresh && !ingress && !egress, !one.after && (!one.before || one.fresh)
	})
	s.must(s.replace(heir.attached(), h.after.attached()))
}

// inheritBehindTheAPI does it with an agent, which first does not know it, and then does
// not know of whom the address is, and at last has been told of something that is no pod.
func (s *crashSite) inheritBehindTheAPI(h history, n *process, c *cluster) {
	s.t.Helper()
	defer n.keeper.Close()
	heir := c.heir()
	s.must(s.replace(c.attached(), heir.attached()))
	q := s.ofHeir(h, c, c)
	rule := func(one question) (must, mustNot bool) { return one.after, !one.after }
	s.must(n.hears())
	s.check(h, "an agent does not know of an heir yet", q, rule)
	s.must(n.learns(Batch{}, heir.attached()))
	s.check(h, "an agent does not know who an heir is", q, rule)
	s.must(n.learns(Batch{}, heir.nobodyAt(lentNumber).attached()))
	s.check(h, "an heir has ended, and the API still has the one before", q, rule)
	var addresses []netip.Addr
	for _, family := range families {
		addresses = append(addresses, lent(family))
	}
	noPod := append(heir.nobodyAt(lentNumber).attached(), Attached{Addresses: addresses})
	s.must(s.replace(heir.attached(), noPod))
	s.must(n.learns(Batch{}, noPod))
	s.check(h, "the heir is no pod", q, rule)
	if left, err := n.evicted(); err != nil || len(left) > 0 {
		s.t.Errorf("%s: in the end evicted are %v, %v", h.name, left, err)
	}
}

// ofHeir are connections with the lent address, of which both clusters say what is right
// where it is nobody's.
func (s *crashSite) ofHeir(h history, before, after *cluster) (all []question) {
	before, after = before.nobodyAt(lentNumber), after.nobodyAt(lentNumber)
	for _, one := range s.questions(h) {
		if one.goesOn || !one.isOfHeir() {
			continue
		}
		all = append(all, question{packet: one.packet, before: before.allows(one.packet), after: after.allows(one.packet), fresh: one.fresh})
	}
	return all
}

// isOfHeir reports whether an end has the lent address.
func (q question) isOfHeir() bool {
	for _, f := range families {
		if a := lent(f); q.source.Addr() == a || q.destination.Addr() == a {
			return true
		}
	}
	return false
}

// question is a connection, or a packet of one that goes on, and what is right before
// and after a change.
type question struct {
	packet
	before, after bool
	fresh         bool // an end is a pod that has come with the change
	goesOn        bool
}

// questions are about all pods of a history, and one that is none.
func (s *crashSite) questions(h history) (all []question) {
	addresses := map[netip.Addr]bool{netip.MustParseAddr("10.0.0.99"): true, netip.MustParseAddr("fd00::99"): true}
	fresh := map[netip.Addr]bool{}
	for _, c := range []*cluster{h.before, h.after} {
		for _, p := range c.pods {
			for _, ip := range p.Status.PodIPs {
				a := netip.MustParseAddr(ip.IP)
				addresses[a] = true
				// Of pods elsewhere nobody here knows before the API server tells.
				was := h.before.podAt(a)
				if p.Spec.NodeName == thisNode && (h.rebooted || was == nil || was.UID != p.UID) {
					fresh[a] = true
				}
			}
		}
	}
	port := uint16(10000)
	for from := range maps.Keys(addresses) {
		for to := range maps.Keys(addresses) {
			if from.Is4() != to.Is4() || from == to {
				continue
			}
			port++
			p := packet{netip.AddrPortFrom(from, port), netip.AddrPortFrom(to, 80), UDP}
			one := question{packet: p, before: h.before.allows(p), after: h.after.allows(p), fresh: fresh[from] || fresh[to]}
			all = append(all, one)
			// Connections of before, in both directions.
			if one.before && !one.fresh {
				one.source = netip.AddrPortFrom(from, port+20000)
				one.goesOn = true
				all = append(all, one)
				one.source, one.destination = one.destination, one.source
				all = append(all, one)
			}
		}
	}
	return all
}

// converse has the connections begin that go on during the change.
func (s *crashSite) converse(q []question) {
	s.t.Helper()
	var all []packet
	for _, one := range q {
		if one.goesOn {
			all = append(all, one.packet) // there, and then back
		}
	}
	for i, passed := range s.passing(all, func(int) bool { return true }) {
		if !passed {
			s.t.Fatalf("before the change %s does not pass", all[i])
		}
	}
}

// check compares what passes with what has to and what must not.
func (s *crashSite) check(h history, when string, q []question, rule func(question) (must, mustNot bool)) {
	s.t.Helper()
	var all []packet
	var asked []question
	for _, one := range q {
		p := one.packet
		if !one.goesOn {
			s.next++
			p.source = netip.AddrPortFrom(p.source.Addr(), 1024+s.next%8000)
		}
		all, asked = append(all, p), append(asked, one)
	}
	passed := s.passing(all, func(i int) bool { must, _ := rule(asked[i]); return must })
	for i, one := range asked {
		what := "new: "
		if one.goesOn {
			what = "going on: "
		}
		switch must, mustNot := rule(one); {
		case must && !passed[i]:
			s.t.Errorf("%s: %s: closed is %s%s (allowed before: %v, after: %v)", h.name, when, what, all[i], one.before, one.after)
		case mustNot && passed[i]:
			s.t.Errorf("%s: %s: open is %s%s (allowed before: %v, after: %v)", h.name, when, what, all[i], one.before, one.after)
		}
	}
}

// lateNumber is that of the addresses of the pod that comes late.
const lateNumber = 60

// toLate are connections with it.
func toLate() (all []question) {
	for _, family := range []string{"10.0.0.%d", "fd00::%x"} {
		late := netip.MustParseAddr(fmt.Sprintf(family, lateNumber))
		for _, other := range []int{1, 2, 5, 99} {
			o := netip.MustParseAddr(fmt.Sprintf(family, other))
			all = append(all,
				question{packet: packet{netip.AddrPortFrom(o, 1), netip.AddrPortFrom(late, 80), UDP}},
				question{packet: packet{netip.AddrPortFrom(late, 1), netip.AddrPortFrom(o, 80), UDP}})
		}
	}
	return all
}

func (c *cluster) clone() *cluster {
	return &cluster{maps.Clone(c.namespaces), maps.Clone(c.pods), maps.Clone(c.policies), maps.Clone(c.wide), maps.Clone(c.nodes)}
}

func (c *cluster) put(p *v1.Pod) { c.pods[Name{p.Namespace, p.Name}] = p }

func pod(namespace, name, uid, node string, number int, app string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid), Labels: map[string]string{"app": app}}}
	p.Spec.NodeName = node
	p.Status.PodIPs = []v1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", number)}, {IP: fmt.Sprintf("fd00::%x", number)}}
	return p
}

// with returns a cluster with a change.
func (c *cluster) with(change func(*cluster)) *cluster {
	o := c.clone()
	change(o)
	return o
}

func (c *cluster) setPolicy(namespace, name string, spec networking.NetworkPolicySpec) {
	c.policies[Name{namespace, name}] = &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func (c *cluster) setNamespace(name, team string) {
	c.namespaces[name] = &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
}

func app(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func team(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": name}}
}

// reachedBy lets only some reach pods with a label.
func reachedBy(name string, peers ...networking.NetworkPolicyPeer) networking.NetworkPolicySpec {
	s := networking.NetworkPolicySpec{PodSelector: *app(name), PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress}}
	if len(peers) > 0 {
		s.Ingress = []networking.NetworkPolicyIngressRule{{From: peers}}
	}
	return s
}

// histories are the changes, of a cluster with pods here and elsewhere.
func histories() []history {
	bare := newCluster()
	bare.setNamespace("shop", "good")
	bare.setNamespace("other", "bad")
	bare.setNamespace("vault", "bad")
	bare.put(pod("shop", "web", "web", thisNode, 1, "web"))
	bare.put(pod("shop", "near", "near", thisNode, 2, "good"))
	bare.put(pod("shop", "far", "far", "there", 3, "good"))
	bare.put(pod("shop", "bad", "bad", "there", 4, "bad"))
	bare.put(pod("other", "free", "free", thisNode, 5, "free"))
	bare.put(pod("shop", "lender", "lender", thisNode, lentNumber, "good"))
	base := bare.with(func(c *cluster) {
		c.setPolicy("vault", "all", networking.NetworkPolicySpec{PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress}})
		c.setPolicy("shop", "web", reachedBy("web", networking.NetworkPolicyPeer{PodSelector: app("good")}, networking.NetworkPolicyPeer{NamespaceSelector: team("bad"), PodSelector: app("free")}))
	})
	limited := base.with(func(c *cluster) {
		c.setPolicy("shop", "near", networking.NetworkPolicySpec{
			PodSelector: *app("good"), PolicyTypes: []networking.PolicyType{networking.PolicyTypeEgress},
			Egress: []networking.NetworkPolicyEgressRule{{To: []networking.NetworkPolicyPeer{{IPBlock: &networking.IPBlock{CIDR: "10.0.0.0/30"}}, {PodSelector: app("web")}}}},
		})
		c.setPolicy("shop", "web more", reachedBy("web", networking.NetworkPolicyPeer{PodSelector: app("bad")}))
	})
	return []history{
		{name: "first start", before: bare, after: limited, never: true},
		{name: "reboot", before: limited, after: limited, rebooted: true},
		{name: "policies added", before: base, after: limited},
		{name: "policies removed", before: limited, after: base},
		{name: "policy changed", before: limited, after: limited.with(func(c *cluster) {
			c.setPolicy("shop", "web", reachedBy("web", networking.NetworkPolicyPeer{PodSelector: app("good")}, networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: "fd00::/64", Except: []string{"fd00::5/128"}}}))
		})},
		{name: "pods added", before: limited, after: limited.with(func(c *cluster) {
			c.put(pod("shop", "web2", "web2", thisNode, 11, "web"))
			c.put(pod("shop", "near2", "near2", thisNode, 12, "good"))
			c.put(pod("shop", "far2", "far2", "there", 13, "good"))
		})},
		{name: "a pod elsewhere comes and another one goes", before: limited, after: limited.with(func(c *cluster) {
			c.put(pod("shop", "far2", "far2", "there", 13, "good"))
			delete(c.pods, Name{"shop", "far"})
		})},
		{name: "a pod's labels changed", before: limited, after: limited.with(func(c *cluster) { c.put(pod("shop", "far", "far", "there", 3, "bad2")) })},
		{name: "an address used again elsewhere", before: limited, after: limited.with(func(c *cluster) {
			delete(c.pods, Name{"shop", "far"})
			c.put(pod("shop", "next", "next", "there", 3, "stranger"))
		})},
		{name: "an address used again here", before: limited, after: limited.with(func(c *cluster) {
			delete(c.pods, Name{"shop", "near"})
			c.put(pod("vault", "next", "next", thisNode, 2, "stranger"))
		})},
		{name: "a pod made again under its name", before: limited, after: limited.with(func(c *cluster) { c.put(pod("shop", "web", "web again", thisNode, 1, "web")) })},
		{name: "labels of namespaces changed", before: limited, after: limited.with(func(c *cluster) { c.setNamespace("other", "good"); c.setNamespace("shop", "bad") })},
	}
}
