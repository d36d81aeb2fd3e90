package agent

import (
	"fmt"
	"net/netip"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/policy"
)

// gate closes new pods by the list that the plugin reads, and opens them.
type gate struct {
	config  Config
	table   closed.Table
	told    string
	refused [2]uint64 // by tables that were removed
}

// Tell implements [policy.Gate].
func (g *gate) Tell(of map[string][2]bool, others [2]bool) error {
	words := func(d [2]bool) []string {
		all := []string{}
		for _, one := range policy.Directions {
			if d[one] {
				all = append(all, one.String())
			}
		}
		return all
	}
	l := closed.List{Namespaces: map[string][]string{}, Others: words(others), WithoutAgent: g.config.PoliciesWithoutAgent}
	for name, d := range of {
		l.Namespaces[name] = words(d)
	}
	text := fmt.Sprint(l) // maps are printed in order
	if text == g.told {
		return nil
	}
	if err := closed.Write(g.config.PoliciesFile, l); err != nil {
		return err
	}
	g.told = text
	return nil
}

// Closed implements [policy.Gate].
func (g *gate) Closed() ([]netip.Addr, error) { return g.table.Addresses() }

// Attached implements [policy.Gate].
func (g *gate) Attached() ([]policy.Attached, error) {
	records, err := attachment.OpenDirectory(g.config.StateDir).List("")
	return attachedIn(records), err
}

// Admit implements [policy.Gate].
func (g *gate) Admit(open, readmit []netip.Addr) error { return g.table.Admit(open, readmit) }

// Evict implements [policy.Gate].
func (g *gate) Evict(addresses ...netip.Addr) error { return g.table.Begin(addresses, false, false) }

// Shut implements [policy.Gate].
func (g *gate) Shut(addresses ...netip.Addr) error { return g.table.Close(addresses, true, true) }

// Refused implements [policy.Gate].
func (g *gate) Refused() (packets [2]uint64, err error) {
	of, err := g.table.Refused()
	for _, d := range policy.Directions {
		packets[d] = g.refused[d] + of[d.String()]
	}
	return packets, err
}

// Rest implements [policy.Gate].
func (g *gate) Rest() error {
	of, err := g.table.Rest()
	for _, d := range policy.Directions {
		g.refused[d] += of[d.String()]
	}
	return err
}
