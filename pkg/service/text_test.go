package service

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/nft"
)

// content are tables as texts: each set's elements by their keys.
type content map[nft.ID]*contentOf

type contentOf struct {
	sets   map[string]map[string]nft.Element
	shapes map[string]nft.Set
	chains []nft.Chain
}

// contentOfTables is what tables hold by themselves.
func contentOfTables(tables []nft.Table) content {
	all := content{}
	for _, t := range tables {
		c := &contentOf{map[string]map[string]nft.Element{}, map[string]nft.Set{}, t.Chains}
		for _, s := range t.Sets {
			c.sets[s.Name], c.shapes[s.Name] = map[string]nft.Element{}, s
			if s.Elements == nil {
				continue
			}
			s.Elements.All(func(e nft.Element) bool {
				if _, twice := c.sets[s.Name][e.Key]; twice {
					panic(fmt.Sprintf("%s is twice in %s", s.Text(e), s.Name))
				}
				c.sets[s.Name][e.Key] = e
				return true
			})
		}
		all[t.ID] = c
	}
	return all
}

// elements are a set's, as nft writes them, in order.
func (c *contentOf) elements(set string) (all []string) {
	for _, e := range c.sets[set] {
		all = append(all, c.shapes[set].Text(e))
	}
	slices.Sort(all)
	return all
}

// lines are a line for each rule, which keep their order within their chain, and each
// element.
func (c content) lines() string {
	var lines []string
	for id, t := range c {
		for _, ch := range t.chains {
			for i, rule := range ch.Rules {
				lines = append(lines, fmt.Sprintf("%s chain %s %s %d %s\n", id, ch.Name, ch.Base, i, rule))
			}
		}
		for set := range t.sets {
			for _, e := range t.elements(set) {
				lines = append(lines, fmt.Sprintf("%s %s %s\n", id, set, e))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// text is what nft would list of what is wanted, with elements in order.
func text(want *Ruleset) string {
	var b strings.Builder
	for _, t := range want.tables() {
		for i, s := range t.Sets {
			if s.Elements != nil {
				var all nft.List
				s.Elements.All(func(e nft.Element) bool { all = append(all, e); return true })
				slices.SortFunc(all, func(a, b nft.Element) int { return strings.Compare(a.Key, b.Key) })
				t.Sets[i].Elements = all
			}
		}
		b.WriteString(t.String())
	}
	return b.String()
}
