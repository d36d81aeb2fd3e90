package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/test/cluster"
	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// policed is a node with a flatnetd that reads policies from a directory, or one that
// keeps none.
type policed struct {
	lab     *netlab.Lab
	node    *cluster.Node
	objects string // the directory
}

// space is the namespace of its pods.
const space = "shop"

// newPoliced makes a node with so many policies; less than 0 is a flatnetd without
// --policies. Ten of 1,000 select the pods, and of these the last one lets them talk to
// each other. Of less than that it is one.
func newPoliced(programs string, policies int) (*policed, error) {
	p := &policed{lab: netlab.New()}
	c := cluster.New(p.lab, programs)
	c.OneSegment(cluster.IPv4, 1)
	p.node = c.Nodes[0]
	if policies < 0 {
		c.Start()
		return p, nil
	}
	const selecting = 10
	var rules []role
	for i := range policies {
		one := role{"path", "friend"}
		switch last := i == policies-1; {
		case last:
		case i%(policies/selecting) == policies/selecting-1:
			one.peers = fmt.Sprintf("stranger%d", i)
		default:
			one.app = fmt.Sprintf("other%d", i)
		}
		rules = append(rules, one)
	}
	return startPoliced(c, rules)
}

// role is a policy: who it selects, and who these may talk to.
type role struct{ app, peers string }

// startPoliced starts a cluster with policies; pods are on its first node.
func startPoliced(c *cluster.Cluster, policies []role, flags ...string) (*policed, error) {
	p := &policed{lab: c.Lab, node: c.Nodes[0], objects: filepath.Join(c.Directory, "objects")}
	if err := os.MkdirAll(p.objects, 0o700); err != nil {
		return p, err
	}
	var text strings.Builder
	for i, one := range policies {
		fmt.Fprintf(&text, `---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: %s, name: p%04d}, spec: {podSelector: {matchLabels: {app: %s}}, policyTypes: [Ingress, Egress],
  ingress: [{from: [{podSelector: {matchLabels: {role: %[4]s}}}]}], egress: [{to: [{podSelector: {matchLabels: {role: %[4]s}}}]}]}}
`, space, i, one.app, one.peers)
	}
	if err := p.write("policies", text.String()); err != nil {
		return p, err
	}
	c.WriteNodes()
	for _, n := range c.Nodes {
		n.Start(append([]string{"--policies", "--policies-dir", p.objects, "--policies-file", filepath.Join(n.Directory, "policies.json")}, flags...)...)
	}
	for _, n := range c.Nodes {
		n.WaitReady()
	}
	return p, nil
}

// write puts objects into a file of the directory.
func (p *policed) write(name, text string) error {
	path := filepath.Join(p.objects, name+".yaml")
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// described is a pod of the first node as the API server has it once it is scheduled: its
// addresses are its node's to know.
func described(name, role string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {namespace: %s, name: %s, labels: {app: path, role: %s}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {phase: Pending}}\n", space, name, role)
}

// running is what it has of a pod that runs, from where other nodes know the addresses.
func running(pod *cluster.Pod, role string) string {
	var addresses []string
	for _, a := range pod.Addresses {
		addresses = append(addresses, fmt.Sprintf("{ip: %q}", a))
	}
	return strings.NewReplacer(
		"nodeName: n1", "nodeName: "+pod.Node.Name,
		"phase: Pending", "phase: Running, podIPs: ["+strings.Join(addresses, ", ")+"]",
	).Replace(described(pod.Name, role))
}

// pod attaches a pod.
func (p *policed) pod(name, role string) (*cluster.Pod, error) {
	if p.objects != "" {
		if err := p.write(name, described(name, role)); err != nil {
			return nil, err
		}
	}
	pod := p.node.Prepare(space, name)
	return pod, pod.Add()
}

// isolates waits until a pod's rules are in place.
func (p *policed) isolates(pod *cluster.Pod) error {
	if p.objects == "" {
		return nil
	}
	_, err := pace.Await(pace.Far(), func() error {
		for _, side := range []string{"ingress4", "egress4"} {
			text, err := pod.Node.Output("nft", "list", "map", "inet", "flatnet-policy", side)
			if err != nil {
				return err
			}
			if !strings.Contains(text, pod.Address(false).String()+" :") {
				return fmt.Errorf("no rules for %s", pod.Name)
			}
		}
		return nil
	})
	return err
}

// rests has the node be without the table of closed pods, which goes by itself some seconds
// after the last one was opened; or with it, and somebody in it who stays closed.
func (p *policed) rests(shut bool) error {
	if shut {
		return p.node.Do(func() error {
			return (&closed.Table{}).Close([]netip.Addr{netip.MustParseAddr("10.244.1.250")}, true, true)
		})
	}
	_, err := pace.Await(pace.Far(), func() error {
		return p.node.Do(func() error {
			table := &closed.Table{}
			if still, err := table.Addresses(); err != nil || len(still) > 0 {
				return errors.Join(err, fmt.Errorf("%v are still closed", still))
			}
			_, err := table.Rest()
			return err
		})
	})
	return err
}

// passing is what traffic is like between two pods of a node.
type passing struct {
	name    string
	informs bool // there is no target for it
	node    *policed
	path    path
	rates   []rates // by measurement
	starts  openings
}

// The contenders of passPolicies, by how many policies are in the pods' namespace.
var passings = []struct {
	name     string
	policies int
	shut     bool // a third pod is closed meanwhile: its rules are not there yet
}{
	{name: "without --policies", policies: -1},
	{name: "1 policy", policies: 1},
	{name: "1,000 policies, 10 of them select the pods", policies: 1000},
	{name: "1 policy, and a pod that is still closed", policies: 1, shut: true},
}

// established are the measurements of [measurements] that are looked at.
var established = []measurement{measurements[0], measurements[1], measurements[3]}

func (b *bench) passPolicies(ctx context.Context, programs string) (all []*passing, err error) {
	for _, one := range passings {
		node, err := newPoliced(programs, one.policies)
		defer func() { node.lab.Close() }()
		if err != nil {
			return nil, err
		}
		from, err := node.pod("a", "friend")
		if err != nil {
			return nil, err
		}
		to, err := node.pod("b", "friend")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(node.isolates(from), node.isolates(to)); err != nil {
			return nil, err
		}
		if err := node.rests(one.shut); err != nil {
			return nil, err
		}
		p := &passing{name: one.name, informs: one.shut, node: node, rates: make([]rates, len(established))}
		p.path = path{name: one.name, from: from.Namespace, to: to.Namespace, ipv4: to.Address(false)}
		p.starts.to = netip.AddrPortFrom(p.path.ipv4, endpointPort)
		if p.starts.asker, err = b.startAsking(node.lab, from.Namespace, to.Namespace); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	dice := rand.New(rand.NewPCG(70, 70))
	for range b.amount.pathRounds {
		for i, m := range established {
			for _, which := range dice.Perm(len(all)) {
				p := all[which]
				rate, err := b.rate(ctx, m.kind, p.path, p.path.ipv4)
				if err != nil {
					return nil, err
				}
				p.rates[i] = append(p.rates[i], rate)
			}
		}
	}
	var starts []*openings
	for _, p := range all {
		starts = append(starts, &p.starts)
	}
	return all, b.openInTurn(ctx, dice, starts)
}

// all are a passing's connections.
func (p *passing) all() (s sample) {
	for _, round := range p.starts.took {
		s = append(s, round...)
	}
	return s
}

// more is how much longer a connection takes than one of another's: the median over all
// rounds of the difference of the round's medians.
func (p *passing) more(than *passing) time.Duration {
	var s sample
	for i := range min(len(p.starts.took), len(than.starts.took)) {
		s = append(s, p.starts.took[i].median()-than.starts.took[i].median())
	}
	return s.median()
}

func passedTable(all []*passing) table {
	t := table{head: []string{"two pods of a node, median (least–most)"}}
	for _, m := range established {
		t.head = append(t.head, m.title+", "+m.unit)
	}
	t.head = append(t.head, "a new connection, µs", "p90", "more than without, µs")
	shown := func(d time.Duration) string { return digits(float64(d) / float64(time.Microsecond)) }
	for _, p := range all {
		row := []string{p.name}
		for i, m := range established {
			row = append(row, p.rates[i].shown(m.show))
		}
		t.rows = append(t.rows, append(row, shown(p.all().median()), shown(p.all().quantile(0.9)), shown(p.more(all[0]))))
	}
	return t
}

func passedRatios(all []*passing) (ratios []ratio) {
	for _, p := range all[1:] {
		if p.informs {
			continue
		}
		for i, m := range established {
			const limit = 1.02
			quotients := all[0].rates[i].over(p.rates[i])
			ratios = append(ratios, ratio{
				what: fmt.Sprintf("%s, without / with %s", m.title, p.name), shown: quotients.String(),
				target: fmt.Sprintf("≤ %g", limit), met: quotients.median() <= limit,
			})
		}
		const limit = 2 * time.Microsecond
		more := p.more(all[0])
		ratios = append(ratios, ratio{
			what: "a new connection, more with " + p.name, shown: fmt.Sprintf("%.2f µs", float64(more)/float64(time.Microsecond)),
			target: "≤ 2 µs", met: more <= limit,
		})
	}
	return ratios
}
