package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// InKernel says whether the rules that decide about a connection are in the kernel as they
// are reckoned with.
type InKernel struct {
	// Differs are the differences, in words; none where the kernel has the rules so.
	Differs []string `json:"differs"`
	// Closed are the ends that are closed until their rules are in place, in one direction
	// or both, whatever the rules say.
	Closed []netip.Addr `json:"closed,omitempty"`
	// Evicted are the ends that somebody new has, of whom the rules do not know yet: no
	// selector chooses them.
	Evicted []netip.Addr `json:"evicted,omitempty"`
	// Failure is why nobody knows, or not all.
	Failure string `json:"failure,omitempty"`
}

// deciding collects what of the table has a say about connections.
type deciding struct {
	plan   *plan
	table  nft.Table
	chains map[string]bool
	keys   map[string][]string // by the set
	ends   []netip.Addr
}

func (c *Controller) deciding() *deciding {
	d := &deciding{plan: c.plan, table: c.plan.tables(c.world, c.ended)[0], chains: map[string]bool{}, keys: map[string][]string{}}
	for _, chain := range d.table.Chains {
		if chain.Base != "" {
			d.enter(chain.Name)
		}
	}
	return d
}

// enter adds a chain, and those that its rules lead to.
func (d *deciding) enter(name string) {
	i := slices.IndexFunc(d.table.Chains, func(c nft.Chain) bool { return c.Name == name })
	if i < 0 || d.chains[name] {
		return
	}
	d.chains[name] = true
	for _, rule := range d.table.Chains[i].Rules {
		words := strings.Fields(rule)
		if n := len(words); n >= 2 && (words[n-2] == "goto" || words[n-2] == "jump") {
			d.enter(words[n-1])
		}
	}
}

func (d *deciding) lookUp(set string, key nft.Key) {
	if k := string(key); !slices.Contains(d.keys[set], k) {
		d.keys[set] = append(d.keys[set], k)
	}
}

// connection adds what has a say about a connection: where it leads, whether it is one of
// a pod with itself, and at each end the pod's chains and what they look up.
func (d *deciding) connection(w *world, from, to netip.Addr, port uint16) {
	f := familyOf(from)
	d.ends = append(d.ends, from, to)
	d.lookUp("self"+f.suffix(), nft.Key(nil).Address(from).Address(to))
	for _, end := range []struct {
		s         side
		near, far netip.Addr
	}{{side{Egress, f}, from, to}, {side{Ingress, f}, to, from}} {
		d.lookUp(end.s.String(), nft.Key(nil).Address(end.near))
		d.enter(d.plan.leads[end.s][end.near])
		for _, one := range d.plan.of[w.holder[end.near]][end.s.direction] {
			for _, c := range d.plan.rules[end.s.direction][one] {
				d.rule(c, end.far, port)
			}
		}
	}
}

// rule adds the lookups of a rule.
func (d *deciding) rule(c *compiled, far netip.Addr, port uint16) {
	f := familyOf(far)
	for _, g := range c.groups {
		d.lookUp(g.names[f], nft.Key(nil).Address(far))
	}
	for _, named := range c.named {
		for _, g := range named {
			d.lookUp(g.names[f], nft.Key(nil).Address(far).Port(port))
		}
	}
	if r := c.blocks[f]; len(r) > 0 {
		d.keys[blockName(f, r)] = nil // which is compared as a whole
	}
}

// compare says what the kernel has otherwise.
func (c *Controller) compare(d *deciding) *InKernel {
	part := d.table
	part.Chains = slices.DeleteFunc(slices.Clone(part.Chains), func(c nft.Chain) bool { return !d.chains[c.Name] })
	part.Sets = slices.DeleteFunc(slices.Clone(part.Sets), func(s nft.Set) bool { _, asked := d.keys[s.Name]; return !asked })
	found, err := c.keeper.Differences(part, d.keys)
	all := &InKernel{Differs: append([]string{}, found...)}
	elsewhere := func(a netip.Addr) bool { return !slices.Contains(d.ends, a) }
	if err == nil && c.Gate != nil {
		all.Closed, err = c.Gate.Closed()
		all.Closed = slices.DeleteFunc(all.Closed, elsewhere)
	}
	if err == nil {
		all.Evicted, err = c.evicted()
		all.Evicted = slices.DeleteFunc(all.Evicted, elsewhere)
	}
	if err != nil {
		all.Failure = err.Error()
	}
	return all
}
