package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/conntrack"
	"github.com/flatnet-cni/flatnet/pkg/nft"
)

var errKilled = errors.New("the process has been killed")

// killer ends a process before its change number at, counted from 0: from then on it
// changes nothing.
type killer struct {
	at    int
	names []string // of the changes that were made
	dead  bool
}

func (k *killer) step(name string) error {
	if k.dead = k.dead || len(k.names) == k.at; k.dead {
		return errKilled
	}
	k.names = append(k.names, name)
	return nil
}

// crashSite is a node on which one process after another keeps the policies, and what is
// left when they end: the kernel's tables, and the list that the plugin reads.
type crashSite struct {
	*proving
	list     string
	attached []Attached // by the plugin's records
	next     uint16     // of a connection
}

// siteGate is an agent's gate, with steps.
type siteGate struct {
	*killer
	site  *crashSite
	table closed.Table
	asked func() // is called when it was read who is attached, and is not told yet; nil for nothing
}

func (g *siteGate) Tell(of map[string][2]bool, others [2]bool) error {
	if err := g.step("list of closed namespaces"); err != nil {
		return err
	}
	words := func(d [2]bool) (all []string) {
		for _, one := range Directions {
			if d[one] {
				all = append(all, one.String())
			}
		}
		return all
	}
	l := closed.List{Namespaces: map[string][]string{}, Others: words(others)}
	for name, d := range of {
		l.Namespaces[name] = words(d)
	}
	return closed.Write(g.site.list, l)
}

func (g *siteGate) Attached() ([]Attached, error) {
	read := g.site.attached
	if g.asked != nil {
		g.asked()
	}
	return read, nil
}
func (g *siteGate) Evict(addresses ...netip.Addr) error {
	return g.table.Begin(addresses, false, false)
}
func (g *siteGate) Shut(addresses ...netip.Addr) error { return g.table.Close(addresses, true, true) }
func (g *siteGate) Refused() ([2]uint64, error)        { return [2]uint64{}, nil }
func (g *siteGate) Rest() error                        { _, err := g.table.Rest(); return err }
func (g *siteGate) Closed() ([]netip.Addr, error)      { return g.table.Addresses() }
func (g *siteGate) Admit(open, readmit []netip.Addr) error {
	return g.table.Admit(open, readmit)
}

// process is an agent's keeping of policies.
type process struct {
	*Controller
	*killer
	source *handed
}

// handed is a source of what a test hands over.
type handed struct{ next Batch }

func (h *handed) Changed() <-chan struct{} { return nil }
func (h *handed) Known() bool              { return true }
func (h *handed) Check() error             { return nil }
func (h *handed) Take() Batch {
	b := h.next
	h.next = Batch{}
	return b
}

// start starts a process that is killed before its change number at; never where that is
// negative.
func (s *crashSite) start(at int) (*process, error) {
	k := &killer{at: at}
	h := &handed{}
	p := &process{NewController(h, silent), k, h}
	g := &siteGate{killer: k, site: s, table: closed.Table{Step: k.step}}
	p.Gate = g
	p.keeper.Step = k.step
	p.forget = func(stale func(conntrack.Flow) bool) (int, error) {
		var killed error
		n, err := conntrack.ForgetFlows(func(f conntrack.Flow) bool {
			if !stale(f) {
				return false
			}
			killed = errors.Join(killed, k.step("forgetting of a connection"))
			return killed == nil
		})
		return n, errors.Join(err, killed)
	}
	// As an agent begins.
	if _, err := os.Stat(s.list); errors.Is(err, os.ErrNotExist) {
		return p, g.Tell(nil, [2]bool{true, true})
	}
	return p, nil
}

// learns has the process learn something, and do all that follows, as [Controller.Run]
// does it.
func (p *process) learns(b Batch, attached []Attached) error {
	p.source.next = b
	p.world.attach(attached)
	p.known, p.knocks, p.departed = true, true, true
	o := p.sync(context.Background(), true, false)
	if o.Err != nil || !p.tighter {
		return o.Err
	}
	p.tighter = false
	return p.end(func() error { return p.write(context.Background(), &o, false) })
}

// hears has the process know that a pod may have been closed, and no more.
func (p *process) hears() error {
	p.knocks = true
	return p.sync(context.Background(), false, false).Err
}

// reset makes the node as if nothing had ever run there, but for connection tracking.
func (s *crashSite) reset() error {
	_, err1 := Remove()
	_, err2 := (&closed.Table{}).Remove()
	_, err3 := conntrack.ForgetFlows(func(conntrack.Flow) bool { return true })
	err4 := os.RemoveAll(s.list)
	return errors.Join(err1, err2, err3, err4, s.track())
}

// track has connections tracked, as masquerading does on each node.
func (s *crashSite) track() error {
	id := nft.ID{Family: nft.INet, Name: "tracking"}
	k := &nft.Keeper{Keeps: []nft.ID{id}}
	defer k.Close()
	_, _, err := k.Sync(context.Background(), []nft.Table{{ID: id, Chains: []nft.Chain{{
		Name: "forward", Base: "type filter hook forward priority filter; policy accept;", Rules: []string{"ct state established,related accept"},
	}}}})
	return err
}

// add is what the plugin does before a pod is connected, and del what it does at its end.
func (s *crashSite) add(a Attached) error {
	l, err := closed.Read(s.list)
	if err != nil {
		return err
	}
	ingress, egress := l.Of(a.Name.Namespace)
	if !l.Policed() {
		return nil
	}
	return (&closed.Table{}).Begin(a.Addresses, ingress, egress)
}

func (s *crashSite) del(a Attached) error {
	return errors.Join((&closed.Table{}).Open(a.Addresses...), conntrack.ForgetAddresses(a.Addresses))
}

// replace deletes the pods that are no longer there, and adds the new ones.
func (s *crashSite) replace(before, after []Attached) (err error) {
	in := func(all []Attached, a Attached) bool {
		return slices.ContainsFunc(all, func(b Attached) bool { return a.Name == b.Name && a.UID == b.UID })
	}
	s.attached = after
	for _, a := range before {
		if !in(after, a) {
			err = errors.Join(err, s.del(a))
		}
	}
	for _, a := range after {
		if !in(before, a) {
			err = errors.Join(err, s.add(a))
		}
	}
	return err
}

func newCrashSite(r *proving, directory string) *crashSite {
	return &crashSite{proving: r, list: filepath.Join(directory, "policies.json")}
}

// changesTo are the objects that are others in another cluster.
func (c *cluster) changesTo(o *cluster) Batch {
	now, then := o.everything(), c.everything()
	b := Batch{Pods: map[Name]*Pod{}, Namespaces: map[string]*Namespace{}, Policies: map[PolicyKey]*Policy{}}
	for name, n := range now.Namespaces {
		if c.namespaces[name] != o.namespaces[name] {
			b.Namespaces[name] = n
		}
	}
	for name, p := range now.Pods {
		if c.pods[name] != o.pods[name] {
			b.Pods[name] = p
		}
	}
	for key, p := range now.Policies {
		if key.Cluster && c.wide[key.Name.Name] != o.wide[key.Name.Name] || !key.Cluster && c.policies[key.Name] != o.policies[key.Name] {
			b.Policies[key] = p
		}
	}
	for name := range then.Namespaces {
		if now.Namespaces[name] == nil {
			b.Namespaces[name] = nil
		}
	}
	for name := range then.Pods {
		if now.Pods[name] == nil {
			b.Pods[name] = nil
		}
	}
	for key := range then.Policies {
		if now.Policies[key] == nil {
			b.Policies[key] = nil
		}
	}
	return b
}

// describe says which change was the last, for a failure.
func (k *killer) describe() string {
	if len(k.names) == 0 {
		return "killed before the first change"
	}
	return fmt.Sprintf("ended after change %d, %s (killed: %v)", len(k.names), k.names[len(k.names)-1], k.dead)
}
